package igpt_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"igpt"
)

// fails holds an error to its kind, and to one line that has some words.
func fails(t *testing.T, err error, kind igpt.Kind, words ...string) {
	t.Helper()
	var typed *igpt.Error
	if !errors.As(err, &typed) || !errors.Is(err, kind) || typed.Kind != kind {
		t.Fatalf("got %v, want %v", err, kind)
	}
	if strings.ContainsAny(typed.Message, "\n\r") || typed.Message == "" {
		t.Errorf("not one line: %q", typed.Message)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// copied is a copy of the golden bundle whose files may be changed.
func copied(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	if err := os.CopyFS(directory, os.DirFS(bundle())); err != nil {
		t.Fatal(err)
	}
	return directory
}

func change(t *testing.T, path string, function func([]byte) []byte) {
	t.Helper()
	if err := os.WriteFile(path, function(must(os.ReadFile(path))), 0o644); err != nil {
		t.Fatal(err)
	}
}

func sum[T any](_ T, err error) error { return err }

func TestLibrary(t *testing.T) {
	_, err := igpt.Open(bundle(), igpt.RuntimeLibrary("/nowhere/libonnxruntime.so"))
	fails(t, err, igpt.ErrRuntime, "/nowhere/libonnxruntime.so")
	_, err = igpt.Open(bundle(), library(), igpt.CUDA())
	if err != nil { // a library with CUDA may still open a model
		fails(t, err, igpt.ErrRuntime, "CUDA")
	}
	for _, threads := range []int{-1, 1025, math.MinInt, math.MaxInt} {
		_, err = igpt.Open(bundle(), library(), igpt.Threads(threads))
		fails(t, err, igpt.ErrOption, "threads")
	}
}

// A library that stands in for ONNX Runtime, of a version and with the real functions or none.
const otherLibrary = `
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
typedef struct { const void *(*get)(uint32_t); const char *(*version)(void); } base;
static const void *get(uint32_t version) {
  void *library = *LIBRARY ? dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL) : NULL;
  const base *(*real)(void) = library ? (const base *(*)(void))dlsym(library, "OrtGetApiBase") : NULL;
  return real ? real()->get(version) : NULL;
}
static const char *version(void) { return VERSION; }
const base *OrtGetApiBase(void) { static const base own = {get, version}; return &own; }
`

func TestOldLibraries(t *testing.T) {
	compiler, err := exec.LookPath("cc")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("needs a C compiler on Linux")
	}
	for version, real := range map[string]string{"1.10.0": "", "1.18.0": os.Getenv("IGPT_ORT_LIBRARY")} {
		if version != "1.10.0" && real == "" {
			continue
		}
		path := filepath.Join(t.TempDir(), "libonnxruntime.so")
		command := exec.Command(compiler, "-shared", "-fPIC", "-x", "c", "-DVERSION=\""+version+"\"",
			"-DLIBRARY=\""+real+"\"", "-", "-o", path, "-ldl")
		command.Stdin = strings.NewReader(otherLibrary)
		if output, err := command.CombinedOutput(); err != nil {
			t.Fatal(err, string(output))
		}
		_, err := igpt.Open(bundle(), igpt.RuntimeLibrary(path))
		fails(t, err, igpt.ErrRuntime, version)
	}
}

func TestBundles(t *testing.T) {
	picture, ctx := find(t, "photo").image(), context.Background()
	_, err := igpt.Open(filepath.Join(t.TempDir(), "none"), library())
	fails(t, err, igpt.ErrBundle, "none")
	_, err = igpt.Open(t.TempDir(), library())
	fails(t, err, igpt.ErrBundle)
	_, err = igpt.Open(bundle()+"\x00", library())
	fails(t, err, igpt.ErrBundle)
	_, err = igpt.Open("", library())
	if !errors.Is(err, igpt.ErrOption) {
		fails(t, err, igpt.ErrBundle)
	}

	directory := copied(t)
	weights := filepath.Join(directory, "weights.safetensors")
	model := open(t, directory)
	if err := os.Remove(weights); err != nil {
		t.Fatal(err)
	}
	fails(t, sum(model.Classify(ctx, picture)), igpt.ErrBundle, "weights.safetensors")

	directory = copied(t)
	weights = filepath.Join(directory, "weights.safetensors")
	change(t, weights, func(data []byte) []byte { data[len(data)-100] ^= 1; return data })
	model = open(t, directory)
	fails(t, sum(model.Classify(ctx, picture)), igpt.ErrBundle, "SHA-256")
	fails(t, sum(igpt.Collect(model.Sample(ctx))), igpt.ErrBundle, "SHA-256")
	must(open(t, directory, igpt.NoVerify()).Classify(ctx, picture))

	directory = copied(t)
	for name, function := range map[string]func([]byte) []byte{
		"postprocess.onnx": func([]byte) []byte { return []byte("this is no graph\n") },
		"preprocess.onnx":  func([]byte) []byte { return nil },
		"score.onnx": func(data []byte) []byte {
			return bytes.Replace(data, []byte("igpt.format_version\x12\x017"), []byte("igpt.format_version\x12\x019"), 1)
		},
		"features.onnx": func([]byte) []byte { return must(os.ReadFile(filepath.Join(bundle(), "classify.onnx"))) },
		"classify.onnx": func([]byte) []byte {
			return must(os.ReadFile(filepath.Join(os.Getenv("IGPT_DIGITS"), "classify.onnx")))
		},
	} {
		change(t, filepath.Join(directory, name), function)
	}
	_, err = igpt.Open(directory, library())
	fails(t, err, igpt.ErrBundle, "postprocess.onnx")
	os.Remove(filepath.Join(directory, "postprocess.onnx"))
	_, err = igpt.Open(directory, library())
	fails(t, err, igpt.ErrBundle, "preprocess.onnx")
	os.Remove(filepath.Join(directory, "preprocess.onnx"))
	model = open(t, directory)
	fails(t, sum(model.Score(ctx, picture)), igpt.ErrBundle, "score.onnx", "format")
	fails(t, sum(model.Features(ctx, picture)), igpt.ErrBundle, "features.onnx")
	fails(t, sum(model.Classify(ctx, picture)), igpt.ErrBundle, "classify.onnx")
	fails(t, sum(model.Tokens(ctx, picture)), igpt.ErrBundle, "preprocess")
	must(model.Complete(ctx, picture, 4))

	directory = copied(t)
	weights = filepath.Join(directory, "weights.safetensors")
	os.Rename(weights, weights+".moved")
	if err := os.Symlink(weights+".moved", weights); err == nil {
		_, err = igpt.Open(directory, library())
		if err == nil {
			err = sum(open(t, directory).Classify(ctx, picture))
		}
		fails(t, err, igpt.ErrBundle, "weights.safetensors")
	}

	for _, graphs := range [][]igpt.Graph{nil, {{}}, {{Name: "complete", Data: nil}}, {{Name: "other", Data: []byte{1}}}} {
		_, err = igpt.OpenMemory(graphs, nil, library())
		fails(t, err, igpt.ErrOption)
	}
	data := must(os.ReadFile(filepath.Join(bundle(), "classify.onnx")))
	_, err = igpt.OpenMemory([]igpt.Graph{{Name: "classify", Data: data[:len(data)/2]}}, nil, library())
	fails(t, err, igpt.ErrBundle)
	_, err = igpt.OpenMemory([]igpt.Graph{{Name: "classify", Data: data}}, nil, library())
	fails(t, err, igpt.ErrBundle)
	_, err = igpt.OpenMemory([]igpt.Graph{{Name: "classify", Data: data}}, make([]byte, 167540), library())
	fails(t, err, igpt.ErrBundle)
}

func TestOptions(t *testing.T) {
	model, ctx := open(t, bundle()), context.Background()
	picture := find(t, "photo").image()
	for name, options := range map[string][]igpt.SamplingOption{
		"n": {igpt.N(0), igpt.N(-3), igpt.N(65537), igpt.N(math.MaxInt), igpt.N(math.MinInt)},
		"temperature": {igpt.Temperature(-1), igpt.Temperature(math.NaN()), igpt.Temperature(math.Inf(1)),
			igpt.Temperature(-1048576)},
		"top_k": {igpt.TopK(-1), igpt.TopK(-1048576), igpt.TopK(math.MinInt)},
		"top_p": {igpt.TopP(0), igpt.TopP(1.1), igpt.TopP(math.NaN()), igpt.TopP(-1048576), igpt.TopP(math.Inf(-1))},
	} {
		for _, option := range options {
			fails(t, sum(model.Complete(ctx, picture, 4, option)), igpt.ErrOption, name+" must be")
			fails(t, sum(igpt.Collect(model.CompleteSteps(ctx, picture, 4, option))), igpt.ErrOption, name+" must be")
			fails(t, sum(igpt.Collect(model.Sample(ctx, option))), igpt.ErrOption, name+" must be")
		}
	}
	for _, rows := range []int{-1, 8, 99, math.MinInt, math.MaxInt} {
		fails(t, sum(model.Complete(ctx, picture, rows)), igpt.ErrOption, "keep_rows")
		fails(t, sum(igpt.Collect(model.CompleteSteps(ctx, picture, rows))), igpt.ErrOption, "keepRows")
	}
	for _, primer := range [][]int64{make([]int64, 65), {16}, {-1}} {
		fails(t, sum(igpt.Collect(model.Generate(ctx, primer))), igpt.ErrOption, "primer")
	}
	row := make([]int64, 64)
	wrong := make([]int64, 64)
	wrong[63] = 16
	for _, tokens := range [][][]int64{nil, {}, {nil}, {row, row[1:]}, {row, wrong}, make([][]int64, 65537)} {
		fails(t, sum(model.Images(ctx, tokens)), igpt.ErrOption)
	}
	if options := []igpt.SamplingOption{igpt.TopK(math.MaxInt), igpt.Temperature(math.MaxFloat64), igpt.N(1)}; true {
		must(model.Complete(ctx, picture, 4, options...))
	}
}

type liar struct{ image.Rectangle }

func (l liar) Bounds() image.Rectangle   { return l.Rectangle }
func (l liar) ColorModel() color.Model   { return color.GrayModel }
func (l liar) At(x, y int) color.Color   { panic("two\nlines") }
func rectangle(w, h int) image.Rectangle { return image.Rectangle{Max: image.Pt(w, h)} }

func TestWrongImages(t *testing.T) {
	model, ctx := open(t, bundle()), context.Background()
	for name, picture := range map[string]image.Image{
		"nil":       nil,
		"typed nil": (*image.RGBA)(nil),
		"empty":     image.NewGray(rectangle(0, 0)),
		"no height": image.NewGray(rectangle(9, 0)),
		"short":     &image.NRGBA{Pix: make([]byte, 5), Stride: 40, Rect: rectangle(10, 10)},
		"large":     liar{rectangle(65536, 1)},
		"larger":    liar{rectangle(65535, 65535)},
		"too large": liar{image.Rectangle{image.Pt(math.MinInt, math.MinInt), image.Pt(math.MaxInt, math.MaxInt)}},
		"wrapped":   liar{image.Rectangle{image.Pt(1<<62, 0), image.Pt(-1<<62, 1)}},
		"colour":    image.NewUniform(nil),
		"panic":     liar{rectangle(1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			fails(t, sum(model.Complete(ctx, picture, 4)), igpt.ErrImage)
			fails(t, sum(igpt.Collect(model.CompleteSteps(ctx, picture, 4))), igpt.ErrImage)
			fails(t, sum(model.Classify(ctx, picture)), igpt.ErrImage)
			fails(t, sum(model.Features(ctx, picture)), igpt.ErrImage)
			fails(t, sum(model.Score(ctx, picture)), igpt.ErrImage)
			fails(t, sum(model.Tokens(ctx, picture)), igpt.ErrImage)
		})
	}
}

func TestMissingClassifier(t *testing.T) {
	model := open(t, filepath.Join(bundle(), "postprocess.onnx"))
	ctx := context.Background()
	fails(t, sum(model.Complete(ctx, find(t, "photo").image(), 4)), igpt.ErrBundle, "complete")
	fails(t, sum(igpt.Collect(model.Sample(ctx))), igpt.ErrBundle, "decode")
}

func TestClose(t *testing.T) {
	ctx, picture := context.Background(), find(t, "photo").image()
	model := must(igpt.Open(bundle(), library()))
	steps := 0
	for _, err := range model.Sample(ctx, igpt.N(2)) {
		if steps++; steps == 3 {
			model.Close()
		} else if steps > 3 {
			fails(t, err, igpt.ErrState, "closed")
		}
	}
	if steps != 4 {
		t.Errorf("%d steps", steps)
	}
	for range 2 {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, closed := range []*igpt.Model{model, new(igpt.Model)} {
		fails(t, sum(closed.Complete(ctx, picture, 0)), igpt.ErrState)
		fails(t, sum(igpt.Collect(closed.Sample(ctx))), igpt.ErrState)
		fails(t, sum(closed.Classify(ctx, picture)), igpt.ErrState)
		fails(t, sum(closed.Features(ctx, picture)), igpt.ErrState)
		fails(t, sum(closed.Score(ctx, picture)), igpt.ErrState)
		fails(t, sum(closed.Tokens(ctx, picture)), igpt.ErrState)
		fails(t, sum(closed.Images(ctx, [][]int64{make([]int64, closed.Info().NPositions)})), igpt.ErrState)
		closed.Close()
	}
	if err := (*igpt.Model)(nil).Close(); err != nil || model.Info().Height != 8 {
		t.Error(err)
	}
}

// What is not closed is freed by the garbage collector, and what is pinned with it.
func TestGarbage(t *testing.T) {
	data := must(os.ReadFile(filepath.Join(bundle(), "postprocess.onnx")))
	for range 5 {
		must(igpt.OpenMemory([]igpt.Graph{{Name: "postprocess", Data: bytes.Clone(data)}}, nil, library()))
		runtime.GC()
	}
	time.Sleep(10 * time.Millisecond)
	runtime.GC()
}

func TestCancel(t *testing.T) {
	model, picture := open(t, os.Getenv("IGPT_DIGITS")), find(t, "photo").image()
	after := func(delay time.Duration) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(delay, func() { cancel(errors.New("the user left")) })
		return ctx, func() { cancel(nil) }
	}
	is := func(err error) {
		t.Helper()
		fails(t, err, igpt.ErrCancelled, "the user left")
		if !errors.Is(err, context.Canceled) {
			t.Error(err, "hides the context's error")
		}
	}
	const many = 1024 // pictures, which take far longer than the delays

	ctx, cancel := after(50 * time.Millisecond)
	defer cancel()
	is(sum(model.Complete(ctx, picture, 1, igpt.N(many))))

	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	steps := 0
	for _, err := range model.Sample(ctx, igpt.N(many)) {
		if steps++; steps == 4 { // the fourth is under way
			is(err)
		} else if steps == 3 {
			time.AfterFunc(time.Millisecond, func() { stop(errors.New("the user left")) })
		}
	}
	if steps != 4 {
		t.Errorf("it ended after %d steps", steps)
	}

	// A call that waits for its turn is cancelled, too.
	ctx, cancel = after(50 * time.Millisecond)
	defer cancel()
	var wait sync.WaitGroup
	for range 3 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			is(sum(igpt.Collect(model.CompleteSteps(ctx, picture, 1, igpt.N(many)))))
			is(sum(model.Score(ctx, picture)))
		}()
	}
	wait.Wait()
	must(model.Complete(context.Background(), picture, 15, igpt.N(1)))
}

// One model in several goroutines gives what each of them would get alone, as two models do.
func TestGoroutines(t *testing.T) {
	models := []*igpt.Model{open(t, bundle(), igpt.Threads(1)), open(t, bundle(), igpt.Threads(1))}
	ctx, picture := context.Background(), find(t, "photo").image()
	want := must(models[0].Complete(ctx, picture, 4, igpt.N(3), igpt.Seed(9))).Tokens
	classes := must(models[0].Classify(ctx, picture))
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			model := models[i%2]
			for range 3 {
				steps := must(igpt.Collect(model.CompleteSteps(ctx, picture, 4, igpt.N(3), igpt.Seed(9))))
				call := must(model.Complete(ctx, picture, 4, igpt.N(3), igpt.Seed(9))).Tokens
				if !reflect.DeepEqual(steps, want) || !reflect.DeepEqual(call, want) {
					t.Errorf("got %v and %v, want %v", steps, call, want)
				}
				if got := must(model.Classify(ctx, picture)); !reflect.DeepEqual(got, classes) {
					t.Errorf("got %v, want %v", got, classes)
				}
			}
		}()
	}
	wait.Wait()
	for i := range 4 { // a model that is closed meanwhile
		wait.Add(1)
		go func() {
			defer wait.Done()
			for {
				if i == 0 {
					time.Sleep(20 * time.Millisecond)
					models[0].Close()
				}
				if _, err := igpt.Collect(models[0].CompleteSteps(ctx, picture, 4)); err != nil {
					if !errors.Is(err, igpt.ErrState) {
						t.Error(err)
					}
					return
				}
			}
		}()
	}
	wait.Wait()
}

func TestKinds(t *testing.T) {
	kinds := []igpt.Kind{igpt.ErrOption, igpt.ErrImage, igpt.ErrBundle, igpt.ErrRuntime, igpt.ErrMemory, igpt.ErrCancelled,
		igpt.ErrState}
	seen := map[string]bool{}
	for _, kind := range kinds {
		seen[kind.Error()] = true
	}
	if len(seen) != len(kinds) {
		t.Error(seen)
	}
}

// Models are opened and closed beside each other.
func TestOpenings(t *testing.T) {
	var wait sync.WaitGroup
	for range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range 25 {
				model, err := igpt.Open(filepath.Join(bundle(), "postprocess.onnx"), library())
				if err != nil {
					t.Error(err)
					return
				}
				model.Close()
			}
		}()
	}
	wait.Wait()
}
