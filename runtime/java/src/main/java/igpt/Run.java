package igpt;

import static igpt.IgptException.Kind.*;

import java.lang.foreign.Arena;
import java.util.*;

/**
 * A request for pictures, drawn token by token. Iterate over it for one position after the other, or ask for the whole,
 * or first the one and then the other: nothing is drawn before, and each position once. It holds native memory until it
 * is drawn to the end or closed, by itself or with its model.
 *
 * <p>Safe for use by several threads; each step is drawn by one of them.
 */
public final class Run implements Iterable<Step>, AutoCloseable {
    private final Model model;
    private final int[] primer;
    private final SamplingOptions options;
    private final int positions;
    private int[][] rows;
    private Arena arena;
    private Decoder decoder;
    private int position; // up to which the rows are drawn
    private boolean closed;

    Run(Model model, int[] primer, SamplingOptions options) {
        this.model = model;
        this.primer = primer;
        this.options = options;
        positions = model.info().nPositions();
        position = primer.length;
    }

    /**
     * {@return the steps that are left, from the first position that is not drawn} All iterators of a run share its
     * state. Their {@code next} throws {@link IgptException}: BUNDLE, a graph is missing or a file altered; RUNTIME,
     * ONNX Runtime failed; MEMORY; CANCELLED; STATE, the run or the model was closed.
     */
    @Override
    public Iterator<Step> iterator() {
        return new Iterator<>() {
            @Override
            public boolean hasNext() {
                return model.alone(() -> position < positions && !closed);
            }

            @Override
            public Step next() {
                return step();
            }
        };
    }

    /**
     * Draws what is left.
     *
     * @return the tokens of each picture, given ones included, [n][height x width]
     * @throws IgptException as the iterator; STATE: it was closed before the end
     */
    public int[][] tokens() {
        while (model.alone(() -> position < positions)) {
            step();
        }
        return model.alone(() -> Arrays.stream(rows()).map(int[]::clone).toArray(int[][]::new));
    }

    /**
     * Draws what is left.
     *
     * @return the pictures, [n], of the model's size
     * @throws IgptException as {@link #tokens}
     */
    public List<Picture> images() {
        return model.images(tokens());
    }

    /** Ends it from any thread, within a step: whoever draws gets a CANCELLED. */
    public void cancel() {
        options.cancellation().cancel();
    }

    /** Frees what it holds, once a step that runs has ended. What was not drawn cannot be drawn any more. */
    @Override
    public void close() {
        model.alone(() -> {
            closed = true;
            free();
            return null;
        });
    }

    /** Called by who has the model alone. */
    void free() {
        if (arena != null) {
            arena.close();
            arena = null;
            decoder = null;
            model.open.remove(this);
        }
    }

    private Step step() {
        Step step = model.alone(this::draw);
        if (options.progress() != null) {
            long given = primer.length, drawn = options.n() * (step.position() + 1 - given);
            options.progress().step(step.position(), drawn, options.n() * (positions - given));
        }
        return step;
    }

    private Step draw() {
        Bundle bundle = model.bundle();
        if (position == positions) {
            throw new NoSuchElementException("the pictures are drawn");
        }
        if (closed) {
            throw new IgptException(STATE,
                "the run was closed at position " + position + " of " + positions + "; start a new one");
        }
        try {
            if (decoder == null) {
                arena = Arena.ofShared();
                model.open.add(this);
                decoder = new Decoder(bundle, arena, primer, options);
            }
            Step step = new Step(position, decoder.draw(position));
            for (int row = 0; row < options.n(); row++) {
                rows()[row][position] = step.tokens()[row];
            }
            if (++position == positions) {
                free();
            }
            return step;
        } catch (RuntimeException | Error error) {
            closed = true; // a step that was cut off may have left half a slot behind
            free();
            throw error;
        }
    }

    private int[][] rows() {
        if (rows == null) {
            rows = new int[options.n()][];
            Arrays.setAll(rows, row -> Arrays.copyOf(primer, positions));
        }
        return rows;
    }
}
