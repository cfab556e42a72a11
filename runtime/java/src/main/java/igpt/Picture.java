package igpt;

import static igpt.IgptException.Kind.*;

/**
 * A picture of 8 bits a channel. Its data is not copied.
 *
 * @param width in pixels, 1 .. 65535
 * @param height in pixels, 1 .. 65535; both together at most 89478485 pixels
 * @param data rows from the top, RGB [height, width, 3] or RGBA [height, width, 4], by its length. Pictures that a
 *     model draws are RGB
 */
public record Picture(int width, int height, byte[] data) {
    private static final int MAX_SIDE = 65535, MAX_PIXELS = 89478485; // the latter as in Pillow

    /**
     * Checks what it is made of.
     *
     * @throws IgptException IMAGE: a side is out of range, or the data has another length
     */
    public Picture {
        long pixels = (long) width * height;
        if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS) {
            throw new IgptException(IMAGE, "a picture has 1 .. " + MAX_SIDE + " pixels on a side and at most "
                + MAX_PIXELS + ", got " + width + " x " + height);
        }
        if (data == null || data.length != 3 * pixels && data.length != 4 * pixels) {
            throw new IgptException(IMAGE, width + " x " + height + " pixels have " + 3 * pixels
                + " bytes in RGB or " + 4 * pixels + " in RGBA, got " + (data == null ? "none" : data.length));
        }
    }

    /** Its data in RGB: transparency is laid over white, to the nearest level. */
    byte[] rgb() {
        int pixels = width * height;
        if (data.length == 3 * pixels) {
            return data;
        }
        byte[] rgb = new byte[3 * pixels];
        for (int i = 0; i < rgb.length; i++) {
            int level = data[i / 3 * 4 + i % 3] & 255, alpha = data[i / 3 * 4 + 3] & 255;
            rgb[i] = (byte) ((2 * (level * alpha + 255 * (255 - alpha)) + 255) / 510);
        }
        return rgb;
    }
}
