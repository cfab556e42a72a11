package igpt;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.awt.image.BufferedImage;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The example program, run as its comment says. */
class ExampleTest {
    @Test
    void completes(@TempDir Path directory) throws IOException, InterruptedException {
        File in = directory.resolve("in.png").toFile(), out = directory.resolve("out.png").toFile();
        BufferedImage picture = new BufferedImage(20, 20, BufferedImage.TYPE_BYTE_GRAY);
        picture.getRaster().setSample(3, 4, 0, 77);
        ImageIO.write(picture, "png", in);
        Process process = new ProcessBuilder(Path.of(System.getProperty("java.home"), "bin/java").toString(),
            "--enable-native-access=ALL-UNNAMED", "-cp", "target/classes", "examples/Complete.java",
            Places.DIGITS.toString(), in.toString(), out.toString(), "18446744073709551615")
            .redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), said);
        assertEquals("row 9", said.lines().findFirst().orElse(said));
        assertEquals(8, said.lines().count(), said);
        BufferedImage drawn = ImageIO.read(out);
        assertEquals(64, drawn.getWidth());
        assertEquals(16, drawn.getHeight());
    }
}
