package igpt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"igpt"
)

// TestMain finds bundles where the repository has them, unless the environment names others.
func TestMain(m *testing.M) {
	for name, path := range map[string]string{
		"IGPT_GOLDEN": "../../tests/golden", "IGPT_DIGITS": "../python/igpt_runtime/digits",
	} {
		if os.Getenv(name) == "" {
			os.Setenv(name, path)
		}
	}
	model, err := igpt.Open(os.Getenv("IGPT_DIGITS"), library())
	if err != nil {
		fmt.Fprintln(os.Stderr, err, "- IGPT_ORT_LIBRARY names ONNX Runtime, IGPT_DIGITS the bundle of digits")
		os.Exit(1)
	}
	model.Close()
	os.Exit(m.Run())
}

func library() igpt.OpenOption { return igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")) }

// must is for what is not tested here.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func open(t testing.TB, path string, options ...igpt.OpenOption) *igpt.Model {
	t.Helper()
	model, err := igpt.Open(path, append(options, library())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return model
}

func bundle() string { return filepath.Join(os.Getenv("IGPT_GOLDEN"), "bundle") }

type pictureCase struct {
	Name          string
	Height, Width int
	RGB           []byte // base64, as JSON has it
	Tokens        []int64
}

var golden = struct {
	Threefry []struct{ Key, Counter, Result [2]string }
	Uniforms []struct {
		Seed             string
		Sample, Position uint32
		Uniform          float32
	}
	Pictures []pictureCase
	Images   []struct {
		Tokens []int64
		RGB    []byte
	}
	Model []struct {
		Picture       string
		Features      [][]float64
		Probabilities []float64
		Nats          []float64
		NatsPerToken  float64 `json:"nats_per_token"`
	}
	Completions []struct {
		Picture     string
		Keep, N     int
		Seed        string
		Temperature float64
		TopK        int     `json:"top_k"`
		TopP        float64 `json:"top_p"`
		Tokens      [][]int64
	}
}{}

func loadGolden(t testing.TB) {
	t.Helper()
	if golden.Pictures != nil {
		return
	}
	text, err := os.ReadFile(filepath.Join(os.Getenv("IGPT_GOLDEN"), "cases.json"))
	if err == nil {
		err = json.Unmarshal(text, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c pictureCase) image() image.Image {
	picture := image.NewNRGBA(image.Rect(0, 0, c.Width, c.Height))
	for i := range c.Width * c.Height {
		copy(picture.Pix[4*i:], c.RGB[3*i:3*i+3])
		picture.Pix[4*i+3] = 0xff
	}
	return picture
}

func find(t testing.TB, name string) pictureCase {
	t.Helper()
	loadGolden(t)
	for _, c := range golden.Pictures {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no picture %s", name)
	return pictureCase{}
}

func near(t *testing.T, what string, got float32, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(float64(got)-want) <= tolerance) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func word(text string) uint64 { return must(strconv.ParseUint(text, 16, 32)) }

func TestRandomNumbers(t *testing.T) {
	loadGolden(t)
	for _, c := range golden.Threefry {
		got := igpt.Uniform(word(c.Key[0])<<32|word(c.Key[1]), uint32(word(c.Counter[0])), uint32(word(c.Counter[1])))
		if want := float32(word(c.Result[0])>>8) / (1 << 24); got != want {
			t.Errorf("%v: got %v, want %v", c, got, want)
		}
	}
	for _, c := range golden.Uniforms {
		seed := must(strconv.ParseUint(c.Seed, 10, 64))
		if got := igpt.Uniform(seed, c.Sample, c.Position); got != c.Uniform {
			t.Errorf("%v: got %v", c, got)
		}
	}
}

func TestPicturesToTokens(t *testing.T) {
	loadGolden(t)
	model := open(t, bundle())
	for _, c := range golden.Pictures {
		tokens, err := model.Tokens(context.Background(), c.image())
		if err != nil || !reflect.DeepEqual(tokens, c.Tokens) {
			t.Errorf("%s: got %v, %v, want %v", c.Name, tokens, err, c.Tokens)
		}
	}
}

func TestTokensToPictures(t *testing.T) {
	loadGolden(t)
	model := open(t, bundle())
	var tokens [][]int64
	for _, c := range golden.Images {
		tokens = append(tokens, c.Tokens)
	}
	images, err := model.Images(context.Background(), tokens)
	if err != nil || len(images) != len(tokens) {
		t.Fatal(len(images), err)
	}
	for i, c := range golden.Images {
		if !reflect.DeepEqual(rgb(images[i]), c.RGB) || !images[i].Opaque() {
			t.Errorf("%d: got %v, want %v", i, rgb(images[i]), c.RGB)
		}
	}
}

func rgb(picture *image.RGBA) (levels []byte) {
	for i := 0; i < len(picture.Pix); i += 4 {
		levels = append(levels, picture.Pix[i:i+3]...)
	}
	return levels
}

func TestModel(t *testing.T) {
	loadGolden(t)
	model, ctx := open(t, bundle()), context.Background()
	labels := model.Info().Labels
	for _, c := range golden.Model {
		picture := find(t, c.Picture).image()
		classes := must(model.Classify(ctx, picture))
		for i, class := range classes {
			for label := range labels {
				if labels[label] == class.Label {
					near(t, "probability", class.Value, c.Probabilities[label], 1e-4)
				}
			}
			if i > 0 && class.Value > classes[i-1].Value {
				t.Error("not the likeliest first:", classes)
			}
		}
		features := must(model.Features(ctx, picture))
		for i, layer := range c.Features {
			for j, want := range layer {
				near(t, "feature", features[i][j], want, 1e-4)
			}
		}
		score := must(model.Score(ctx, picture))
		near(t, "nats per token", float32(score.NatsPerToken), c.NatsPerToken, 1e-4)
		for i, want := range c.Nats {
			near(t, "nats", score.Nats[i/model.Info().Width][i%model.Info().Width], want, 1e-3)
		}
		if len(classes) != len(c.Probabilities) || len(features) != len(c.Features) ||
			len(features[0]) != len(c.Features[0]) || len(score.Nats) != model.Info().Height {
			t.Error("shapes differ")
		}
	}
}

func TestCompletions(t *testing.T) {
	loadGolden(t)
	model, ctx := open(t, bundle()), context.Background()
	info := model.Info()
	for _, c := range golden.Completions {
		options := []igpt.SamplingOption{
			igpt.N(c.N), igpt.Seed(must(strconv.ParseUint(c.Seed, 10, 64))), igpt.Temperature(c.Temperature),
			igpt.TopK(c.TopK), igpt.TopP(c.TopP),
		}
		picture := find(t, c.Picture)
		tokens := must(igpt.Collect(model.Generate(ctx, picture.Tokens[:c.Keep], options...)))
		if c.Keep == info.NPositions {
			if tokens != nil {
				t.Error("a whole picture has steps")
			}
			continue
		}
		if !reflect.DeepEqual(tokens, c.Tokens) {
			t.Errorf("%v: the loop draws %v", c, tokens)
		}
		if c.Keep%info.Width != 0 {
			continue
		}
		completion := must(model.Complete(ctx, picture.image(), c.Keep/info.Width, options...))
		if !reflect.DeepEqual(completion.Tokens, c.Tokens) {
			t.Errorf("%v: one call draws %v", c, completion.Tokens)
		}
		if !reflect.DeepEqual(completion.Images, must(model.Images(ctx, tokens))) {
			t.Errorf("%v: the pictures are not those of the tokens", c)
		}
		steps := must(igpt.Collect(model.CompleteSteps(ctx, picture.image(), c.Keep/info.Width, options...)))
		if !reflect.DeepEqual(steps, c.Tokens) {
			t.Errorf("%v: steps draw %v", c, steps)
		}
	}
}

func TestSteps(t *testing.T) {
	model, ctx := open(t, bundle()), context.Background()
	primer := find(t, "photo").Tokens[:5]
	requests, whole := model.Generate(ctx, primer, igpt.N(3), igpt.Seed(5)), [][]int64(nil)
	for range 2 { // each loop is a new request
		position := len(primer)
		for step, err := range requests {
			if err != nil {
				t.Fatal(err)
			}
			total := (model.Info().NPositions - len(primer)) * 3
			if step.Position != position || step.Total != total || step.Drawn != (position-len(primer)+1)*3 {
				t.Fatalf("the step %v at %d", step, position)
			}
			sequences := step.Sequences()
			for row, token := range step.Tokens {
				if sequences[row][position] != token || !reflect.DeepEqual(sequences[row][:5], primer) {
					t.Fatal("sequences differ from the steps")
				}
			}
			position++
			whole = sequences
		}
		if position != model.Info().NPositions {
			t.Fatal("the loop ended early")
		}
	}
	for _, n := range []int{1, 8} { // the same pictures, however many are drawn
		drawn := must(igpt.Collect(model.Generate(ctx, primer, igpt.N(n), igpt.Seed(5))))
		if !reflect.DeepEqual(drawn[:min(n, 3)], whole[:min(n, 3)]) {
			t.Errorf("%d pictures are others", n)
		}
		if n == 8 && len(must(igpt.Collect(model.Sample(ctx)))) != n {
			t.Error("the default is not 8")
		}
	}
	for step, err := range requests { // left early, with another call in between
		must(model.Tokens(ctx, find(t, "ramp").image()))
		if step.Position == 7 || err != nil {
			break
		}
	}
}

func TestMemory(t *testing.T) {
	names := []string{"complete", "classify", "preprocess", "postprocess", "prefill", "decode", "decode_shared"}
	graphs := make([]igpt.Graph, len(names))
	for i, name := range names {
		graphs[i] = igpt.Graph{Name: name, Data: must(os.ReadFile(filepath.Join(bundle(), name+".onnx")))}
	}
	weights := must(os.ReadFile(filepath.Join(bundle(), "weights.safetensors")))
	model, err := igpt.OpenMemory(graphs, weights, library())
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	for _, c := range golden.Completions[:2] {
		tokens := must(igpt.Collect(model.CompleteSteps(context.Background(), find(t, c.Picture).image(), c.Keep/8,
			igpt.N(c.N), igpt.Seed(must(strconv.ParseUint(c.Seed, 10, 64))))))
		if !reflect.DeepEqual(tokens, c.Tokens) {
			t.Error("graphs in memory draw others")
		}
	}
	if info := model.Info(); !reflect.DeepEqual(info.Graphs, []string{"prefill", "decode", "decode_shared", "preprocess",
		"postprocess", "complete", "classify"}) {
		t.Error(info.Graphs)
	}
}

func TestOneGraph(t *testing.T) {
	loadGolden(t)
	model := open(t, filepath.Join(bundle(), "preprocess.onnx"))
	for _, c := range golden.Pictures {
		if !reflect.DeepEqual(must(model.Tokens(context.Background(), c.image())), c.Tokens) {
			t.Error(c.Name)
		}
	}
}

func TestInfo(t *testing.T) {
	info := open(t, bundle(), igpt.Threads(1), igpt.Spinning(), igpt.NoMemoryArena(), igpt.NoVerify()).Info()
	if info.Height != 8 || info.Width != 8 || info.NPositions != 64 || info.NClusters != 16 || info.NLayer != 3 ||
		info.NEmbd != 32 || info.Precision != "fp32" || len(info.Labels) != 3 || info.FunctionToApply != "softmax" ||
		info.ONNXRuntime == "" || len(info.Graphs) != 9 {
		t.Errorf("%+v", info)
	}
	info = open(t, os.Getenv("IGPT_DIGITS")).Info()
	if info.Temperature != 0.8 || info.TopK != 0 || info.TopP != 1 || info.Labels[7] != "seven" {
		t.Errorf("%+v", info)
	}
}

// Pictures of all types give the tokens of SPEC section 6, step 1.
func TestImages(t *testing.T) {
	model, ctx := open(t, bundle()), context.Background()
	white := color.NRGBA{255, 255, 255, 255}
	for name, c := range map[string]struct {
		given color.Color
		want  color.NRGBA
	}{
		"transparent":    {color.NRGBA{9, 99, 199, 0}, white},
		"half":           {color.NRGBA{0, 100, 200, 128}, color.NRGBA{127, 177, 227, 255}},
		"premultiplied":  {color.RGBA{64, 0, 0, 128}, color.NRGBA{191, 127, 127, 255}},
		"16 bits":        {color.NRGBA64{0x80ff, 0x1234, 0xffff, 0xffff}, color.NRGBA{0x80, 0x12, 0xff, 255}},
		"16 bits, alpha": {color.NRGBA64{0x00ff, 0x64ff, 0xc8ff, 0x80ff}, color.NRGBA{127, 177, 227, 255}},
		"16 bits, grey":  {color.Gray16{0x7fff}, color.NRGBA{127, 127, 127, 255}},
		"grey":           {color.Gray{77}, color.NRGBA{77, 77, 77, 255}},
		"cmyk":           {color.CMYK{0, 0, 0, 255}, color.NRGBA{0, 0, 0, 255}},
	} {
		if got, want := one(model, c.given), one(model, c.want); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	// Whole pictures of opaque types are read as those that are not known to be opaque.
	bounds := image.Rect(-3, 5, 30, 40)
	for kind := range uint8(5) {
		levels := make([]byte, 16384)
		for i := range levels {
			if levels[i] = byte(i * i >> 3); i%4 == 3 && kind < 2 || i%8 > 5 && kind == 3 {
				levels[i] = 255
			}
		}
		whole := fuzzed(levels, kind, bounds)
		if !whole.(interface{ Opaque() bool }).Opaque() {
			t.Error("not opaque:", kind)
		}
		got, want := must(model.Tokens(ctx, whole)), must(model.Tokens(ctx, hidden{whole}))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d: got %v, want %v", kind, got, want)
		}
	}
	// Bounds need not begin at 0.
	ramp := find(t, "ramp")
	moved := image.NewNRGBA(image.Rect(-5, 3, ramp.Width-5, ramp.Height+3))
	copy(moved.Pix, ramp.image().(*image.NRGBA).Pix)
	if !reflect.DeepEqual(must(model.Tokens(ctx, moved)), ramp.Tokens) {
		t.Error("bounds are not heeded")
	}
}

// one gives the tokens of a picture of one colour, beside a ramp in which no level is far from it.
func one(model *igpt.Model, c color.Color) []int64 {
	return must(model.Tokens(context.Background(), mixed{image.NewUniform(c)}))
}

// hidden is a picture of no known type.
type hidden struct{ image.Image }

type mixed struct{ image.Image }

func (m mixed) Bounds() image.Rectangle { return image.Rect(0, 0, 256, 2) }
func (m mixed) At(x, y int) color.Color {
	if y == 0 {
		return color.Gray{uint8(x)}
	}
	return m.Image.At(x, y)
}

// The copies of the C library are those of this commit.
func TestSources(t *testing.T) {
	theirs, _ := filepath.Glob("../c/*.[ch]")
	ours, _ := filepath.Glob("*.[ch]")
	if len(theirs) == 0 {
		t.Skip("runtime/c is not here")
	}
	if len(theirs) != len(ours) {
		t.Errorf("%v and %v: run go generate", ours, theirs)
	}
	for _, path := range theirs {
		if copied, _ := os.ReadFile(filepath.Base(path)); !bytes.HasSuffix(copied, must(os.ReadFile(path))) {
			t.Errorf("%s is another: run go generate", filepath.Base(path))
		}
	}
}
