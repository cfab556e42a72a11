package igpt;

/**
 * One class.
 *
 * @param label its name
 * @param value its probability; of a regression ({@link Info#functionToApply} is {@code none}) the value itself
 */
public record Classification(String label, float value) {}
