// Completes a picture: complete BUNDLE IN OUT [KEEP_ROWS [N [SEED]]]. IN is a PNG, JPEG or GIF; OUT is a PNG with the
// completions side by side. IGPT_ORT_LIBRARY names ONNX Runtime's shared library. An interrupt cancels.
package main

import (
	"context"
	"fmt"
	"image"
	"image/draw"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"
	"os"
	"os/signal"
	"strconv"

	"igpt"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) < 3 || len(arguments) > 6 {
		return fmt.Errorf("usage: complete BUNDLE IN OUT [KEEP_ROWS [N [SEED]]]")
	}
	model, err := igpt.Open(arguments[0], igpt.RuntimeLibrary(os.Getenv("IGPT_ORT_LIBRARY")))
	if err != nil {
		return err
	}
	defer model.Close()
	numbers := []int{model.Info().Height / 2, 4, 0}
	for i, text := range arguments[3:] {
		if numbers[i], err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	picture, err := load(arguments[1])
	if err != nil {
		return err
	}
	var drawn igpt.Step
	steps := model.CompleteSteps(ctx, picture, numbers[0], igpt.N(numbers[1]), igpt.Seed(uint64(numbers[2])))
	for step, err := range steps {
		if err != nil {
			return err
		}
		drawn = step
		fmt.Printf("\r%d of %d tokens", step.Drawn, step.Total)
	}
	fmt.Println()
	images, err := model.Images(ctx, drawn.Sequences())
	if err != nil {
		return err
	}
	return save(arguments[2], images)
}

func load(path string) (image.Image, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	picture, _, err := image.Decode(file)
	return picture, err
}

func save(path string, images []*image.RGBA) error {
	size := images[0].Bounds().Size()
	sheet := image.NewRGBA(image.Rect(0, 0, size.X*len(images), size.Y))
	for i, picture := range images {
		draw.Draw(sheet, picture.Bounds().Add(image.Pt(i*size.X, 0)), picture, image.Point{}, draw.Src)
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := png.Encode(file, sheet); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
