package igpt;

import static igpt.IgptException.Kind.*;

import java.io.IOException;
import java.lang.foreign.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.security.*;
import java.util.*;

/** The files of a bundle, in a directory or in memory, and its graphs, opened when they are first needed. */
final class Bundle implements AutoCloseable {
    static final String WEIGHTS = "weights.safetensors";
    private static final List<String> GRAPHS = List.of( // small ones first
        "postprocess", "preprocess", "features", "classify", "score", "complete", "prefill", "decode", "decode_shared");
    private static final int HUB_LEVELS = 3, AT_ONCE = 1 << 20;

    final Ort ort;
    final Info info;
    final ModelOptions options;
    private final Arena arena = Arena.ofShared();
    private final Map<String, Path> paths = new HashMap<>();
    private final Map<String, MemorySegment> contents = new HashMap<>(); // given, or mapped from the paths
    private final Map<String, Graph> open = new HashMap<>();
    private String weightsHash;

    /**
     * @param path of a directory or of one graph; null for a bundle in memory
     * @param files of a bundle in memory
     */
    Bundle(ModelOptions options, Path path, Map<String, MemorySegment> files) {
        String variable = System.getenv("IGPT_ORT_LIBRARY");
        boolean named = options.runtimeLibrary() == null && variable != null && !variable.isEmpty();
        this.options = options;
        ort = new Ort(named ? Path.of(variable) : options.runtimeLibrary());
        try {
            if (path == null) {
                files.forEach((name, content) -> contents.put(
                    name, content.isNative() ? content : ort.memory(arena, content.byteSize()).copyFrom(content)));
            } else if (Files.isDirectory(path)) {
                GRAPHS.forEach(name -> paths.put(name, path.resolve(name + ".onnx")));
                paths.put(WEIGHTS, path.resolve(WEIGHTS));
            } else {
                paths.put(WEIGHTS, path.resolveSibling(WEIGHTS));
                paths.put("", path);
                Graph graph = opened("", false);
                paths.put(graph.text("graph"), path);
                open.put(graph.text("graph"), graph);
            }
            String first = GRAPHS.stream().filter(this::has).findFirst().orElseThrow(() -> new IgptException(BUNDLE,
                (path == null ? "the memory" : path) + " has no graph of a bundle; make one with igpt-export"));
            info = Info.of(graph(first));
        } catch (RuntimeException error) {
            close();
            throw error;
        }
    }

    boolean has(String graph) {
        return contents.containsKey(graph + ".onnx") || open.containsKey(graph)
            || paths.containsKey(graph) && Files.exists(paths.get(graph), LinkOption.NOFOLLOW_LINKS);
    }

    /** A graph, opened when it is first asked for. */
    Graph graph(String name) {
        if (!open.containsKey(name)) {
            open.put(name, opened(name, false));
        }
        return open.get(name);
    }

    /** A graph for one run, fast to open. The caller closes it. */
    Graph openOnce(String name) {
        return opened(name, true);
    }

    @Override
    public void close() {
        open.values().forEach(Graph::close);
        ort.close();
        arena.close();
    }

    private Graph opened(String name, boolean once) {
        if (!name.isEmpty() && !has(name)) {
            throw new IgptException(BUNDLE, "the bundle " + info.name() + " has no " + name
                + ".onnx; export it with --embed, from a checkpoint that has what is asked for, or open all its files");
        }
        Path path = paths.get(name), weights = paths.get(WEIGHTS);
        // ONNX Runtime refuses weights behind a link: they are given to it in memory, which takes more of that.
        boolean inMemory = path == null || Files.isSymbolicLink(weights);
        if (path != null) { // before ONNX Runtime waits for a pipe
            regular(path);
            if (Files.exists(weights)) {
                regular(weights);
            }
        }
        boolean packed = once && info.precision().equals("int4"); // the others are as fast straight from the file
        Graph graph = new Graph(ort, path == null ? name + ".onnx" : path.toString(), inMemory ? null : path,
            inMemory ? content(name) : null, inMemory ? content(WEIGHTS) : null,
            memory -> options.create(ort, memory, once, packed));
        try {
            check(graph, name);
            return graph;
        } catch (RuntimeException error) {
            graph.close();
            throw error;
        }
    }

    /** Whether a graph is of this bundle, and the weights that it refers to are the right ones. */
    private void check(Graph graph, String name) {
        Info found = Info.of(graph);
        if (info != null && (!found.equals(info) || !name.equals(graph.text("graph")))) {
            throw new IgptException(BUNDLE,
                graph.place() + " is a graph of another bundle; copy or export the bundle again");
        }
        if (!found.onnxruntimeMinimum().isEmpty() && ort.isBefore(found.onnxruntimeMinimum())) {
            throw new IgptException(RUNTIME, graph.place() + " needs ONNX Runtime " + found.onnxruntimeMinimum()
                + " or newer, and " + ort.version + " is loaded, which fails or computes something else;"
                + " install a newer one");
        }
        String expected = graph.text("weights_sha256");
        if (expected != null) {
            if (content(WEIGHTS) == null) { // ONNX Runtime may have found others in the working directory
                throw new IgptException(BUNDLE, WEIGHTS + " is missing, and " + graph.place() + " needs it; give it too");
            }
            weightsHash = weightsHash == null ? sha256(content(WEIGHTS)) : weightsHash;
            if (!expected.equals(weightsHash)) {
                throw new IgptException(BUNDLE, paths.getOrDefault(WEIGHTS, Path.of(WEIGHTS)) + " is altered, or of"
                    + " another bundle than " + graph.place() + "; copy or export the bundle again");
            }
        }
    }

    /** A file of the bundle in native memory; null for a missing one of those that were given. */
    private MemorySegment content(String name) {
        String file = name.equals(WEIGHTS) ? name : name + ".onnx";
        if (!contents.containsKey(file) && paths.containsKey(name)) {
            try (FileChannel channel = FileChannel.open(regular(paths.get(name)))) {
                contents.put(file, channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena));
            } catch (IOException error) {
                throw new IgptException(BUNDLE, paths.get(name) + " cannot be read (" + error + "); check it", error);
            }
        }
        return contents.get(file);
    }

    /** A path, if it is a regular file, or a link to where the Hugging Face Hub's cache keeps this bundle's files. */
    private static Path regular(Path path) {
        try {
            Path target = path.toRealPath(), above = path.toAbsolutePath().getParent().toRealPath();
            boolean good = !Files.isSymbolicLink(path);
            for (int level = 0; level < HUB_LEVELS && !good && (above = above.getParent()) != null; level++) {
                Path blobs = above.resolve("blobs");
                good = target.startsWith(blobs) && !Files.isSymbolicLink(blobs);
            }
            if (good && Files.isRegularFile(target)) {
                return path;
            }
        } catch (IOException error) {
            // it leads nowhere
        }
        throw new IgptException(BUNDLE,
            path + " is missing, not a regular file, or a link out of the bundle; copy or export the bundle again");
    }

    private static String sha256(MemorySegment content) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (long at = 0; at < content.byteSize(); at += AT_ONCE) {
                digest.update(content.asSlice(at, Math.min(AT_ONCE, content.byteSize() - at)).asByteBuffer());
            }
            return HexFormat.of().formatHex(digest.digest());
        } catch (NoSuchAlgorithmException error) {
            throw new AssertionError(error); // every JDK has it
        }
    }
}
