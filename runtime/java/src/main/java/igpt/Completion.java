package igpt;

import java.util.List;

/**
 * What {@link Model#completeOnce} draws.
 *
 * @param images pictures of the model's size, [n]
 * @param tokens those of each picture, given ones included, [n][height x width]
 */
public record Completion(List<Picture> images, int[][] tokens) {}
