package igpt;

import java.util.regex.Pattern;

/**
 * The one exception of this package. Its {@link #kind()} says what kind of thing went wrong. Its message is one line:
 * what, where, and what to do about it.
 */
public final class IgptException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final int LONGEST = 800; // characters of a message
    private static final Pattern NO_MEMORY = Pattern.compile(
        "(?i)out of memory|bad.?alloc|failed to allocate memory|insufficient memory|ALLOC_FAILED");

    /** What kind of thing went wrong. */
    public enum Kind {
        /** An option or an argument is out of range, or does not fit the bundle. */
        OPTION,
        /** An argument is no picture. */
        IMAGE,
        /** A bundle is missing, damaged, of an unknown version, or lacks what was asked of it. */
        BUNDLE,
        /** ONNX Runtime is not there, is too old, has not the provider that was asked for, or failed. */
        RUNTIME,
        /** There is not enough memory. */
        MEMORY,
        /** The call was cancelled. */
        CANCELLED,
        /** The model or the run was closed before. */
        STATE
    }

    /** What went wrong. */
    private final Kind kind;

    IgptException(Kind kind, String message, Throwable... causes) {
        super(oneLine(message), causes.length == 0 ? null : causes[0]);
        this.kind = kind;
    }

    /** {@return what kind of thing went wrong} */
    public Kind kind() {
        return kind;
    }

    /** What ONNX Runtime says of a failure. */
    static IgptException ofRuntime(String reason) {
        return new IgptException(NO_MEMORY.matcher(reason).find() ? Kind.MEMORY : Kind.RUNTIME, reason);
    }

    /** The same failure with a place and a remedy. A lack of memory stays one, and has its own remedy. */
    IgptException within(Kind other, String fact, String remedy) {
        boolean memory = kind == Kind.MEMORY;
        return new IgptException(memory ? kind : other, fact + " (" + getMessage() + "); "
            + (memory ? "no memory is left: draw fewer pictures at once" : remedy), this);
    }

    /** Names and labels are others' texts: without what a terminal obeys. */
    private static String oneLine(String text) {
        String line = text.strip().replaceAll("[\\s\\p{Cntrl}\\u0085\\u2028\\u2029]+", " ");
        return line.length() <= LONGEST ? line : line.substring(0, LONGEST) + "...";
    }
}
