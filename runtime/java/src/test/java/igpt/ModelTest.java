package igpt;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import igpt.IgptException.Kind;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** What a model does besides the golden pack. */
@Timeout(120)
class ModelTest {
    private static final Picture PICTURE = Places.noise(20, 13);
    private static Model digits;

    @BeforeAll
    static void open() {
        digits = Model.open(Places.DIGITS, Places.options());
    }

    @AfterAll
    static void close() {
        digits.close();
    }

    @Test
    void info() {
        Info info = digits.info();
        assertEquals("digits", info.name());
        assertEquals(List.of(16, 16, 256, 6, 4, 32, 256), List.of(info.height(), info.width(), info.nPositions(),
            info.nLayer(), info.nHead(), info.headDim(), info.nClusters()));
        assertEquals("seven", info.labels().get(7));
        assertEquals(0.8, info.temperature());
        assertEquals(1.0, info.topP());
        assertEquals("fp32", info.precision());
    }

    @Test
    void theNumberOfPicturesDoesNotMatter() {
        int[][] eight = digits.complete(PICTURE, new SamplingOptions().n(8).seed(-1)).tokens();
        for (int n : new int[] {1, 3, 8}) {
            SamplingOptions options = new SamplingOptions().n(n).seed(-1);
            assertArrayEquals(Arrays.copyOf(eight, n), digits.complete(PICTURE, options).tokens());
            assertArrayEquals(Arrays.copyOf(eight, n), digits.completeOnce(PICTURE, options).tokens());
        }
    }

    @Test
    void whatIsLeftOutIsRecommended() {
        SamplingOptions all = new SamplingOptions().n(2).temperature(0.8).topK(0).topP(1).keepRows(8);
        assertArrayEquals(
            digits.complete(PICTURE, new SamplingOptions().n(2)).tokens(), digits.complete(PICTURE, all).tokens());
    }

    @Test
    void fromNothing() {
        int[][] sampled = digits.sample(new SamplingOptions().n(2).seed(5)).tokens();
        SamplingOptions none = new SamplingOptions().n(2).seed(5).keepRows(0);
        assertArrayEquals(sampled, digits.completeOnce(PICTURE, none).tokens());
        assertArrayEquals(sampled, digits.complete(PICTURE, none).tokens());
        assertEquals(16, digits.sample(new SamplingOptions().n(1)).images().get(0).height());
    }

    @Test
    void aPrimerOfEachLength() {
        int[] whole = digits.generate(new int[0], new SamplingOptions().n(1).seed(3)).tokens()[0];
        for (int length : new int[] {1, 15, 16, 17, 255, 256}) {
            for (int n : new int[] {1, 7}) { // alone and with a shared prefix
                Run run = digits.generate(Arrays.copyOf(whole, length), new SamplingOptions().n(n).seed(3));
                assertArrayEquals(whole, run.tokens()[0], () -> length + " tokens, " + n + " rows");
            }
        }
    }

    @Test
    void transparencyIsLaidOverWhite() {
        Picture rgba = new Picture(1, 3, new byte[] {9, 8, 7, -1, 9, 8, 7, 0, 100, 0, -1, -128});
        assertArrayEquals(new byte[] {9, 8, 7, -1, -1, -1, (byte) 177, 127, -1}, rgba.rgb());
        Picture rgb = new Picture(1, 3, rgba.rgb());
        assertArrayEquals(digits.tokens(rgb), digits.tokens(rgba));
    }

    @Test
    void progress() {
        List<String> told = new ArrayList<>();
        SamplingOptions options = new SamplingOptions().n(3).keepRows(15)
            .progress((position, drawn, total) -> told.add(position + " " + drawn + "/" + total));
        Run run = digits.complete(PICTURE, options);
        assertTrue(told.isEmpty());
        run.tokens();
        assertEquals(16, told.size());
        assertEquals("240 3/48", told.get(0));
        assertEquals("255 48/48", told.get(15));
    }

    @Test
    void aLoopThatIsLeft() {
        try (Run run = digits.complete(PICTURE, new SamplingOptions().n(2))) {
            Iterator<Step> steps = run.iterator();
            assertEquals(128, steps.next().position());
            assertEquals(129, run.iterator().next().position()); // goes on
            run.close();
            assertFalse(steps.hasNext());
            Places.fails(Kind.STATE, "closed at position 130 of 256", steps::next);
            Places.fails(Kind.STATE, "closed", run::images);
        }
    }

    @Test
    void cancelledWithinAStep() {
        Cancellation cancellation = new Cancellation();
        // One call, which would take far longer than this test may.
        SamplingOptions options = new SamplingOptions().n(4096).keepRows(0).cancellation(cancellation);
        CompletableFuture.delayedExecutor(300, TimeUnit.MILLISECONDS).execute(cancellation::cancel);
        long begun = System.nanoTime();
        Places.fails(Kind.CANCELLED, "cancelled", () -> digits.completeOnce(PICTURE, options));
        assertTrue(System.nanoTime() - begun < 60e9);
        Places.fails(Kind.CANCELLED, "cancelled", () -> digits.completeOnce(PICTURE, options));
        assertTrue(cancellation.isCancelled());
        assertEquals(1, digits.completeOnce(PICTURE, new SamplingOptions().n(1)).tokens().length);
    }

    @Test
    void aCancelledRun() {
        Run run = digits.complete(PICTURE, new SamplingOptions().n(2));
        Iterator<Step> steps = run.iterator();
        steps.next();
        run.cancel();
        Places.fails(Kind.CANCELLED, "cancelled", steps::next);
        assertFalse(steps.hasNext());
    }

    @Test
    void oneModelInTwoThreads() {
        int[][] expected = digits.sample(new SamplingOptions().n(2).seed(9)).tokens();
        List<CompletableFuture<int[][]>> drawn = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            drawn.add(CompletableFuture.supplyAsync(() -> digits.sample(new SamplingOptions().n(2).seed(9)).tokens()));
        }
        drawn.forEach(one -> assertArrayEquals(expected, one.join()));
    }

    @Test
    void twoModelsInTwoThreads() {
        int[][] expected = digits.sample(new SamplingOptions().n(1)).tokens();
        List<CompletableFuture<int[][]>> drawn = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            drawn.add(CompletableFuture.supplyAsync(() -> {
                try (Model model = Model.open(Places.DIGITS, Places.options())) {
                    return model.sample(new SamplingOptions().n(1)).tokens();
                }
            }));
        }
        drawn.forEach(one -> assertArrayEquals(expected, one.join()));
    }

    @Test
    void otherOptions() {
        ModelOptions options = Places.options().arena(false).spinning(true).threads(2);
        try (Model model = Model.open(Places.DIGITS, options)) {
            SamplingOptions sampling = new SamplingOptions().n(2);
            assertArrayEquals(digits.sample(sampling).tokens(), model.sample(sampling).tokens());
        }
    }

    @Test
    void closedWhileARunIsOpen() {
        Model model = Model.open(Places.BUNDLE, Places.options());
        Run run = model.sample(new SamplingOptions().n(2));
        Iterator<Step> steps = run.iterator();
        steps.next();
        model.close();
        model.close();
        Places.fails(Kind.STATE, "the model golden was closed", steps::next);
        Places.fails(Kind.STATE, "closed", () -> model.classify(PICTURE));
        assertEquals("golden", model.info().name());
        run.close();
    }

    @Test
    void fromMemory() throws IOException {
        Map<String, MemorySegment> files = Places.files();
        SamplingOptions options = new SamplingOptions().n(7).seed(2);
        try (Model model = Model.open(Places.BUNDLE, Places.options());
                Model copy = Model.open(files, Places.options())) {
            assertEquals(model.info(), copy.info());
            assertArrayEquals(model.sample(options).tokens(), copy.sample(options).tokens());
            assertArrayEquals(model.complete(PICTURE, options).tokens(), copy.complete(PICTURE, options).tokens());
            assertEquals(model.classify(PICTURE), copy.classify(PICTURE));
        }
        try (Arena arena = Arena.ofShared()) { // native memory, and of the graphs only one
            byte[] graph = Files.readAllBytes(Places.BUNDLE.resolve("score.onnx"));
            byte[] weights = Files.readAllBytes(Places.BUNDLE.resolve("weights.safetensors"));
            Map<String, MemorySegment> two = Map.of(
                "score.onnx", arena.allocate(graph.length).copyFrom(MemorySegment.ofArray(graph)),
                "weights.safetensors", arena.allocate(weights.length).copyFrom(MemorySegment.ofArray(weights)));
            try (Model model = Model.open(two, Places.options())) {
                assertEquals(64, model.score(PICTURE).nats().length);
                Places.fails(Kind.BUNDLE, "no classify.onnx", () -> model.classify(PICTURE));
            }
        }
    }

    @Test
    void oneFile(@TempDir Path directory) throws IOException {
        Path file = directory.resolve("alone.onnx");
        MemorySegment weights = Places.files().get("weights.safetensors");
        byte[] graph = Files.readAllBytes(Places.BUNDLE.resolve("complete.onnx"));
        Files.write(file, SingleFile.of(graph, weights));
        SamplingOptions options = new SamplingOptions().n(2).seed(2);
        try (Model model = Model.open(file, Places.options());
                Model whole = Model.open(Places.BUNDLE, Places.options())) {
            assertEquals("golden", model.info().name());
            assertArrayEquals(
                whole.completeOnce(PICTURE, options).tokens(), model.completeOnce(PICTURE, options).tokens());
            Places.fails(Kind.BUNDLE, "no decode.onnx", () -> model.sample(options).tokens());
        }
        // A graph of a bundle, which finds its weights beside it.
        try (Model model = Model.open(Places.BUNDLE.resolve("score.onnx"), Places.options())) {
            assertEquals(64, model.score(PICTURE).nats().length);
        }
    }

    @Test
    void theCacheOfTheHub(@TempDir Path hub) throws IOException {
        Places.copy(hub.resolve("blobs"));
        Path snapshot = Files.createDirectories(hub.resolve("snapshots/0123abcd"));
        for (String name : List.of("score.onnx", "decode.onnx", "postprocess.onnx", "weights.safetensors")) {
            Files.createSymbolicLink(snapshot.resolve(name), Path.of("../../blobs").resolve(name));
        }
        try (Model model = Model.open(snapshot, Places.options());
                Model copy = Model.open(Places.BUNDLE, Places.options())) {
            assertEquals(copy.score(PICTURE).natsPerToken(), model.score(PICTURE).natsPerToken());
            SamplingOptions options = new SamplingOptions().n(2).seed(4);
            assertArrayEquals(copy.sample(options).tokens(), model.sample(options).tokens());
        }
    }
}
