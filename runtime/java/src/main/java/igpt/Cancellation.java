package igpt;

import static igpt.IgptException.Kind.*;

import java.util.ArrayList;
import java.util.List;

/**
 * Ends calls from another thread. Give one to {@link SamplingOptions#cancellation(Cancellation)}, and keep it.
 *
 * <p>Safe for use by several threads. One may be given to several calls; once cancelled it stays so.
 */
public final class Cancellation {
    private final List<Runnable> running = new ArrayList<>();
    private boolean cancelled;

    /** A new one, not cancelled. */
    public Cancellation() {}

    /** Ends what is running with it, within a step, and what would start later. These calls throw {@code CANCELLED}. */
    public synchronized void cancel() {
        cancelled = true;
        running.forEach(Runnable::run);
    }

    /** {@return whether it was cancelled} */
    public synchronized boolean isCancelled() {
        return cancelled;
    }

    /** Notes how to end what begins now. */
    synchronized void enter(Runnable end) {
        if (cancelled) {
            throw error();
        }
        running.add(end);
    }

    synchronized void leave(Runnable end) {
        running.remove(end);
    }

    static IgptException error() {
        return new IgptException(CANCELLED, "the call was cancelled; start it again with another Cancellation");
    }
}
