package igpt;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import java.io.ByteArrayOutputStream;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;

/** Puts the weights of a graph into it, as {@code igpt-export --single-file} does. */
final class SingleFile {
    private static final int METADATA = 14, GRAPH = 7, INITIALIZER = 5, RAW_DATA = 9, EXTERNAL_DATA = 13;
    private static final int DATA_LOCATION = 14;

    private SingleFile() {}

    static byte[] of(byte[] model, MemorySegment weights) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (Field field : new Fields(model)) {
            String text = new String(field.content(), StandardCharsets.UTF_8);
            if (field.number() != METADATA || !text.contains("igpt.weights_sha256")) {
                write(out, field.number() == GRAPH ? new Field(GRAPH, 2, graph(field.content(), weights)) : field);
            }
        }
        return out.toByteArray();
    }

    private static byte[] graph(byte[] graph, MemorySegment weights) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (Field field : new Fields(graph)) {
            write(out, field.number() == INITIALIZER
                ? new Field(INITIALIZER, 2, tensor(field.content(), weights)) : field);
        }
        return out.toByteArray();
    }

    private static byte[] tensor(byte[] tensor, MemorySegment weights) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        long offset = 0, length = -1;
        for (Field field : new Fields(tensor)) {
            if (field.number() == EXTERNAL_DATA) {
                String[] entry = new String[3];
                for (Field part : new Fields(field.content())) {
                    entry[part.number()] = new String(part.content(), StandardCharsets.UTF_8);
                }
                offset = entry[1].equals("offset") ? Long.parseLong(entry[2]) : offset;
                length = entry[1].equals("length") ? Long.parseLong(entry[2]) : length;
            } else if (field.number() != DATA_LOCATION) {
                write(out, field);
            }
        }
        if (length >= 0) {
            write(out, new Field(RAW_DATA, 2, weights.asSlice(offset, length).toArray(JAVA_BYTE)));
        }
        return out.toByteArray();
    }

    private static void write(ByteArrayOutputStream out, Field field) {
        varint(out, (long) field.number() << 3 | field.type());
        if (field.type() == 2) {
            varint(out, field.content().length);
        }
        out.writeBytes(field.content());
    }

    private static void varint(ByteArrayOutputStream out, long value) {
        for (; value >>> 7 != 0; value >>>= 7) {
            out.write((int) (value & 127 | 128));
        }
        out.write((int) value);
    }

    /** A field of a message of Protocol Buffers. content: its bytes, without their length. */
    private record Field(int number, int type, byte[] content) {}

    private record Fields(byte[] message) implements Iterable<Field> {
        @Override
        public java.util.Iterator<Field> iterator() {
            return new java.util.Iterator<>() {
                private int at;

                @Override
                public boolean hasNext() {
                    return at < message.length;
                }

                @Override
                public Field next() {
                    long tag = read();
                    int type = (int) tag & 7, start = at;
                    int length = switch (type) {
                        case 0 -> {
                            read();
                            yield at - start;
                        }
                        case 1 -> 8;
                        case 5 -> 4;
                        default -> (int) read();
                    };
                    start = type == 0 ? start : at;
                    at = start + length;
                    return new Field((int) (tag >>> 3), type, java.util.Arrays.copyOfRange(message, start, at));
                }

                private long read() {
                    long value = 0;
                    for (int shift = 0; ; shift += 7) {
                        byte next = message[at++];
                        value |= (long) (next & 127) << shift;
                        if (next >= 0) {
                            return value;
                        }
                    }
                }
            };
        }
    }
}
