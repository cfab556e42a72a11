package igpt_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log"
	"os"
	"path/filepath"
	"time"

	"igpt"
)

// seven is a picture of a digit: one of the examples of its model, which are 16 pixels wide and high.
func seven() image.Image {
	file, err := os.Open(filepath.Join(os.Getenv("IGPT_DIGITS"), "examples.png"))
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	sheet, err := png.Decode(file)
	if err != nil {
		log.Fatal(err)
	}
	return sheet.(interface {
		SubImage(image.Rectangle) image.Image
	}).SubImage(image.Rect(32, 0, 48, 16))
}

func Example() {
	model, err := igpt.Open(os.Getenv("IGPT_DIGITS"), igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	completion, err := model.Complete(ctx, seven(), 8, igpt.N(4), igpt.Seed(7))
	if err != nil {
		log.Fatal(err)
	}
	for _, picture := range completion.Images {
		fmt.Println(picture.Bounds().Size())
	}
	// Output:
	// (16,16)
	// (16,16)
	// (16,16)
	// (16,16)
}

func ExampleModel_Classify() {
	model, err := igpt.Open(os.Getenv("IGPT_DIGITS"), igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	classes, err := model.Classify(context.Background(), seven())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(classes[0].Label)
	// Output: seven
}

func ExampleModel_Score() {
	model, err := igpt.Open(os.Getenv("IGPT_DIGITS"), igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	digit, err := model.Score(context.Background(), seven())
	if err != nil {
		log.Fatal(err)
	}
	stripes := image.NewGray(image.Rect(0, 0, 16, 16))
	for i := range stripes.Pix {
		stripes.Pix[i] = uint8(i % 2 * 255)
	}
	other, err := model.Score(context.Background(), stripes)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(digit.NatsPerToken < other.NatsPerToken)
	// Output: true
}

func ExampleModel_CompleteSteps() {
	model, err := igpt.Open(os.Getenv("IGPT_DIGITS"), igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	ctx := context.Background()
	var drawn [][]int64
	for step, err := range model.CompleteSteps(ctx, seven(), 8, igpt.N(2)) {
		if err != nil {
			log.Fatal(err)
		}
		if step.Position%64 == 63 {
			fmt.Printf("%d of %d tokens\n", step.Drawn, step.Total)
		}
		drawn = step.Sequences()
	}
	images, err := model.Images(ctx, drawn)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(images), "pictures")
	// Output:
	// 128 of 256 tokens
	// 256 of 256 tokens
	// 2 pictures
}

func ExampleModel_Sample() {
	model, err := igpt.Open(os.Getenv("IGPT_DIGITS"), igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	tokens, err := igpt.Collect(model.Sample(context.Background(), igpt.N(3), igpt.Temperature(1), igpt.TopP(0.9)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(tokens), "x", len(tokens[0]))
	// Output: 3 x 256
}

func ExampleError() {
	_, err := igpt.Open("nowhere", igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	fmt.Println(errors.Is(err, igpt.ErrBundle))

	var wrong *igpt.Error
	if errors.As(err, &wrong) {
		fmt.Println(wrong.Message)
	}
	// Output:
	// true
	// no bundle at nowhere; make one with igpt-export
}
