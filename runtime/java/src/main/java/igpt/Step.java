package igpt;

/**
 * The tokens of one position.
 *
 * @param position in the picture, in raster order, 0-based
 * @param tokens one for each picture, [n]
 */
public record Step(int position, int[] tokens) {}
