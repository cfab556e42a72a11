package igpt;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The calls of docs/how-to/mobile.md, with ONNX Runtime's own Java binding: the Android package has the same one. */
@Timeout(120)
class OfficialBindingTest {
    private static final Path COMPLETE = Places.BUNDLE.resolve("complete.onnx");
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();

    /** One file in mapped memory, as an asset is: the golden completions. */
    @Test
    void aSingleFileFromMemory(@TempDir Path directory) throws IOException, OrtException {
        Path file = directory.resolve("complete.onnx");
        MemorySegment weights = Places.files().get("weights.safetensors");
        Files.write(file, SingleFile.of(Files.readAllBytes(COMPLETE), weights));
        try (FileChannel channel = FileChannel.open(file);
                OrtSession session = environment.createSession(
                    channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size()), options())) {
            replay(session);
        }
    }

    /** A graph beside its weights, as after copying them to an app's files. */
    @Test
    void besideItsWeights() throws IOException, OrtException {
        try (OrtSession session = environment.createSession(COMPLETE.toString(), options())) {
            replay(session);
        }
    }

    @Test
    void metadata() throws OrtException {
        try (OrtSession session = environment.createSession(COMPLETE.toString(), options())) {
            Map<String, String> found = session.getMetadata().getCustomMetadata();
            assertEquals("8", found.get("igpt.height"));
            assertEquals("7", found.get("igpt.format_version"));
            assertEquals("a", found.get("igpt.label.0"));
        }
    }

    @Test
    void classes() throws IOException, OrtException {
        JsonObject expected = cases().getAsJsonArray("model").get(0).getAsJsonObject();
        Picture picture = pictures().get(expected.get("picture").getAsString());
        String file = Places.BUNDLE.resolve("classify.onnx").toString();
        try (OrtSession session = environment.createSession(file, options());
                OnnxTensor image = image(picture);
                OrtSession.Result result = session.run(Map.of("image", image))) {
            float[] found = (float[]) result.get("probabilities").orElseThrow().getValue();
            assertArrayEquals(new Gson().fromJson(expected.get("probabilities"), float[].class), found, 1e-4f);
        }
    }

    @Test
    void cancelled() throws OrtException {
        try (OrtSession session = environment.createSession(Places.DIGITS.resolve("complete.onnx").toString(), options());
                OrtSession.RunOptions end = new OrtSession.RunOptions()) {
            CompletableFuture<Void> cancels = CompletableFuture.runAsync(() -> {
                try {
                    end.setTerminate(true);
                } catch (OrtException error) {
                    throw new IllegalStateException(error);
                }
            }, CompletableFuture.delayedExecutor(300, TimeUnit.MILLISECONDS));
            assertThrows(OrtException.class, () -> complete(session, Places.noise(4, 4), 0, 4096, 0, 1, 0, 1, end));
            cancels.join();
        }
    }

    private void replay(OrtSession session) throws IOException, OrtException {
        Map<String, Picture> pictures = pictures();
        int done = 0;
        for (JsonElement element : cases().getAsJsonArray("completions")) {
            JsonObject one = element.getAsJsonObject();
            if (one.get("keep").getAsInt() % 8 == 0) {
                try (OrtSession.RunOptions end = new OrtSession.RunOptions()) {
                    long[][] tokens = complete(session, pictures.get(one.get("picture").getAsString()),
                        one.get("keep").getAsInt() / 8, one.get("n").getAsInt(),
                        Long.parseUnsignedLong(one.get("seed").getAsString()), one.get("temperature").getAsFloat(),
                        one.get("top_k").getAsLong(), one.get("top_p").getAsFloat(), end);
                    assertArrayEquals(new Gson().fromJson(one.get("tokens"), long[][].class), tokens);
                    done++;
                }
            }
        }
        assertTrue(done > 0);
    }

    private static JsonObject cases() throws IOException {
        return JsonParser.parseString(Files.readString(Places.GOLDEN.resolve("cases.json"))).getAsJsonObject();
    }

    private static Map<String, Picture> pictures() throws IOException {
        Map<String, Picture> pictures = new HashMap<>();
        for (JsonElement element : cases().getAsJsonArray("pictures")) {
            JsonObject one = element.getAsJsonObject();
            byte[] data = Base64.getDecoder().decode(one.get("rgb").getAsString());
            pictures.put(one.get("name").getAsString(),
                new Picture(one.get("width").getAsInt(), one.get("height").getAsInt(), data));
        }
        return pictures;
    }

    private long[][] complete(OrtSession session, Picture picture, long keepRows, long n, long seed,
            float temperature, long topK, float topP, OrtSession.RunOptions end) throws OrtException {
        List<OnnxTensor> tensors = new ArrayList<>();
        Map<String, OnnxTensor> inputs = new HashMap<>();
        inputs.put("image", image(picture));
        inputs.put("keep_rows", scalar(keepRows));
        inputs.put("n", scalar(n));
        inputs.put("seed", scalar(seed));
        inputs.put("temperature", scalar(temperature));
        inputs.put("top_k", scalar(topK));
        inputs.put("top_p", scalar(topP));
        tensors.addAll(inputs.values());
        try (OrtSession.Result result = session.run(inputs, end)) {
            OnnxTensor images = (OnnxTensor) result.get("images").orElseThrow();
            assertEquals(n * 8 * 8 * 3, images.getByteBuffer().remaining());
            return (long[][]) result.get("tokens").orElseThrow().getValue();
        } finally {
            tensors.forEach(OnnxTensor::close);
        }
    }

    private OnnxTensor image(Picture picture) throws OrtException {
        ByteBuffer data = ByteBuffer.wrap(picture.data());
        return OnnxTensor.createTensor(
            environment, data, new long[] {picture.height(), picture.width(), 3}, OnnxJavaType.UINT8);
    }

    private OnnxTensor scalar(long value) throws OrtException {
        return OnnxTensor.createTensor(environment, LongBuffer.wrap(new long[] {value}), new long[0]);
    }

    private OnnxTensor scalar(float value) throws OrtException {
        return OnnxTensor.createTensor(environment, FloatBuffer.wrap(new float[] {value}), new long[0]);
    }

    private static OrtSession.SessionOptions options() throws OrtException {
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setIntraOpNumThreads(1);
        options.addConfigEntry("session.intra_op.allow_spinning", "0");
        options.addConfigEntry("session.disable_prepacking", "1");
        return options;
    }
}
