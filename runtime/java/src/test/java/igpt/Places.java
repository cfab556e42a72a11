package igpt;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Assertions;

/** Where tests find what they need, and copies of it that they may damage. */
final class Places {
    static final Path GOLDEN = place("IGPT_GOLDEN", "../../tests/golden");
    static final Path BUNDLE = GOLDEN.resolve("bundle");
    static final Path DIGITS = place("IGPT_DIGITS", "../python/igpt_runtime/digits");

    private Places() {}

    static ModelOptions options() {
        return new ModelOptions().threads(1);
    }

    /** A picture of noise. */
    static Picture noise(int width, int height) {
        byte[] data = new byte[3 * width * height];
        new Random(7).nextBytes(data);
        return new Picture(width, height, data);
    }

    /** A copy of the tiny bundle. */
    static Path copy(Path target) {
        try (Stream<Path> files = Files.list(BUNDLE)) {
            Files.createDirectories(target);
            for (Path file : files.toList()) {
                Files.copy(file, target.resolve(file.getFileName()));
            }
            return target;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** The tiny bundle's files in memory. */
    static Map<String, MemorySegment> files() {
        Map<String, MemorySegment> files = new HashMap<>();
        try (Stream<Path> paths = Files.list(BUNDLE)) {
            for (Path path : paths.toList()) {
                files.put(path.getFileName().toString(), MemorySegment.ofArray(Files.readAllBytes(path)));
            }
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return files;
    }

    /** Something fails with a kind, and one line that holds a text. */
    static void fails(IgptException.Kind kind, String text, org.junit.jupiter.api.function.Executable call) {
        IgptException error = Assertions.assertThrows(IgptException.class, call);
        Assertions.assertEquals(kind, error.kind(), error.getMessage());
        Assertions.assertTrue(error.getMessage().contains(text), error.getMessage());
        Assertions.assertEquals(1, error.getMessage().lines().count());
    }

    private static Path place(String variable, String otherwise) {
        String value = System.getenv(variable);
        return Path.of(value == null ? otherwise : value).toAbsolutePath().normalize();
    }
}
