package igpt

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
)

const maxN, maxSide, maxPixels = 1 << 16, 65535, 89478485 // as in the library, which checks them again

// readImage gives a picture's levels as uint8 [height, width, 4], not multiplied by alpha.
func readImage(picture image.Image) (levels []byte, width, height int, err error) {
	defer func() { // pictures are of any type, and their bounds may promise more than they hold
		if reason := recover(); reason != nil {
			err = fail(ErrImage, "the %T cannot be read (%q); give a sound picture", picture, fmt.Sprint(reason))
		}
	}()
	bounds := picture.Bounds()
	width, height = bounds.Dx(), bounds.Dy()
	if width < 1 || height < 1 || width > maxSide || height > maxSide || width*height > maxPixels {
		return nil, 0, 0, fail(ErrImage, "the picture is %dx%d; give 1 .. %d pixels a side, and at most %d", width,
			height, maxSide, maxPixels)
	}
	whole, known := picture.(interface{ Opaque() bool })
	if known && whole.Opaque() && picture.ColorModel() != color.Gray16Model { // fast, and exact for these
		copied := image.NewRGBA(image.Rect(0, 0, width, height))
		draw.Draw(copied, copied.Rect, picture, bounds.Min, draw.Src)
		return copied.Pix, width, height, nil
	}
	levels = make([]byte, 0, 4*width*height)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := eightBits(picture.At(x, y))
			levels = append(levels, c.R, c.G, c.B, c.A)
		}
	}
	return levels, width, height, nil
}

// eightBits is step 1 of SPEC section 6.
func eightBits(c color.Color) color.NRGBA {
	switch c := c.(type) {
	case color.Gray16:
		return eightBits(color.Gray{uint8((uint32(c.Y) + 128) / 257)})
	case color.NRGBA64:
		return color.NRGBA{uint8(c.R >> 8), uint8(c.G >> 8), uint8(c.B >> 8), uint8(c.A >> 8)}
	}
	return color.NRGBAModel.Convert(c).(color.NRGBA)
}

// toImages makes pictures of uint8 [n, height, width, 3].
func toImages(levels []byte, height, width int) []*image.RGBA {
	var pictures []*image.RGBA
	for len(levels) > 0 {
		picture := image.NewRGBA(image.Rect(0, 0, width, height))
		for i := 0; i < len(picture.Pix); i += 4 {
			copy(picture.Pix[i:i+3], levels)
			picture.Pix[i+3] = 0xff
			levels = levels[3:]
		}
		pictures = append(pictures, picture)
	}
	return pictures
}
