//! Completes a picture: `complete BUNDLE IN OUT [KEEP_ROWS [N [SEED]]]`. IN is a PNG or JPEG; OUT is a PNG with the
//! completions side by side. `IGPT_ORT_LIBRARY` names ONNX Runtime's shared library.

use std::error::Error;
use std::{env, io::Write};

use image::{DynamicImage, ImageDecoder, ImageReader, Rgb, RgbImage, imageops};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [bundle, input, output, numbers @ ..] = &arguments[..] else {
        return Err("usage: complete BUNDLE IN OUT [KEEP_ROWS [N [SEED]]]".into());
    };
    let number = |place: usize, default: u64| numbers.get(place).map_or(Ok(default), |text| text.parse());

    let mut session = igpt::Session::open(bundle)?;
    let mut decoder = ImageReader::open(input)?.with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation); // as a camera held it
    let mut white = DynamicImage::ImageRgb8(RgbImage::from_pixel(picture.width(), picture.height(), Rgb([255; 3])));
    imageops::overlay(&mut white, &picture, 0, 0); // for what is transparent
    let (width, height) = (white.width() as usize, white.height() as usize);
    let image = igpt::Image { width, height, data: white.into_rgb8().into_raw() };

    let rows = number(0, session.info().height as u64 / 2)? as usize;
    let options = igpt::Options { n: number(1, 4)? as usize, seed: number(2, 0)?, ..session.info().options };
    let mut run = session.complete_steps(&image, rows, &options)?;
    for step in &mut run {
        let step = step?;
        print!("\r{} of {} tokens", step.drawn, step.total);
        std::io::stdout().flush()?;
    }
    println!();

    let images = run.finish()?.images;
    let (width, height) = (images[0].width as u32, images[0].height as u32);
    let mut sheet = RgbImage::new(width * images.len() as u32, height);
    for (x, image) in (0..).step_by(width as usize).zip(images) {
        let image = RgbImage::from_raw(width, height, image.data).ok_or("a picture of another size")?;
        imageops::replace(&mut sheet, &image, x, 0);
    }
    sheet.save(output)?;
    Ok(())
}
