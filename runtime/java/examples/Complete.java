import igpt.Model;
import igpt.Picture;
import igpt.Run;
import igpt.SamplingOptions;
import igpt.Step;
import java.awt.image.BufferedImage;
import java.awt.image.IndexColorModel;
import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import javax.imageio.ImageIO;

/**
 * Keeps the top half of a picture, draws the rest four times, and writes them side by side:
 *
 * <pre>java --enable-native-access=ALL-UNNAMED -cp target/igpt-0.1.0.jar examples/Complete.java \
 *     BUNDLE IN.png OUT.png [SEED]</pre>
 */
class Complete {
    private static final int[] SHIFTS = {16, 8, 0, 24}; // of red, green, blue and alpha in a pixel

    public static void main(String[] arguments) throws IOException {
        Picture picture = read(new File(arguments[1]));
        long seed = arguments.length > 3 ? Long.parseUnsignedLong(arguments[3]) : 0;
        try (Model model = Model.open(Path.of(arguments[0]));
                Run run = model.complete(picture, new SamplingOptions().n(4).seed(seed))) {
            for (Step step : run) {
                if ((step.position() + 1) % model.info().width() == 0) {
                    System.out.println("row " + (step.position() + 1) / model.info().width());
                }
            }
            write(run.images(), new File(arguments[2]));
        }
    }

    static Picture read(File file) throws IOException {
        BufferedImage image = ImageIO.read(file);
        if (image == null) {
            throw new IOException(file + " is no picture that Java reads");
        }
        int width = image.getWidth(), height = image.getHeight();
        // Java takes grey levels for linear light and would brighten them: their samples are the levels.
        boolean grey = image.getColorModel().getNumColorComponents() == 1
            && image.getSampleModel().getSampleSize(0) == 8 && !(image.getColorModel() instanceof IndexColorModel);
        byte[] rgba = new byte[4 * width * height];
        for (int i = 0; i < rgba.length; i++) {
            int x = i / 4 % width, y = i / 4 / width, channel = i % 4;
            boolean sample = grey && channel < 3;
            rgba[i] = (byte) (sample ? image.getRaster().getSample(x, y, 0) : image.getRGB(x, y) >> SHIFTS[channel]);
        }
        return new Picture(width, height, rgba);
    }

    static void write(List<Picture> pictures, File file) throws IOException {
        int width = pictures.get(0).width(), height = pictures.get(0).height();
        BufferedImage sheet = new BufferedImage(pictures.size() * width, height, BufferedImage.TYPE_INT_RGB);
        for (int i = 0; i < pictures.size(); i++) {
            byte[] rgb = pictures.get(i).data();
            for (int at = 0; at < width * height; at++) {
                int colour = (rgb[3 * at] & 255) << 16 | (rgb[3 * at + 1] & 255) << 8 | rgb[3 * at + 2] & 255;
                sheet.setRGB(i * width + at % width, at / width, colour);
            }
        }
        ImageIO.write(sheet, "png", file);
    }
}
