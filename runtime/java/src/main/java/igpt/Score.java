package igpt;

/**
 * What a picture costs.
 *
 * @param natsPerToken the mean of nats
 * @param nats minus the log-likelihood of each token, [height, width] of the model's picture, row by row
 */
public record Score(float natsPerToken, float[] nats) {}
