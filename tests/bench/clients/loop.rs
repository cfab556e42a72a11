//! loop BUNDLE N REPEATS: as loop.c.

use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut session = igpt::SessionBuilder { spinning: true, ..Default::default() }.open(&arguments[1])?;
    let image = igpt::Image { width: 1, height: 1, data: vec![128; 3] };
    let options = igpt::Options { n: arguments[2].parse()?, ..session.info().options };
    let mut primer = session.tokens(&image)?;
    primer.truncate(primer.len() / 2);
    let mut tokens = Vec::new();
    for i in 0..=arguments[3].parse()? {
        let start = Instant::now();
        tokens = session.generate(&primer, &options)?.finish()?.tokens;
        if i > 0 {
            print!("{} ", start.elapsed().as_secs_f64());
        }
    }
    println!();
    for token in tokens.concat() {
        print!("{token} ");
    }
    println!();
    Ok(())
}
