package igpt;

/**
 * Mean-pooled hidden states of a picture.
 *
 * @param rows nLayer + 1: the input of each block, and the output of the final layer norm
 * @param columns n_embd
 * @param data [rows, columns], row by row
 */
public record Features(int rows, int columns, float[] data) {}
