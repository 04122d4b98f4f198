"""Kafka's variable-length integers."""


class Varints(dict[int, bytes]):
    """
    Integers in Kafka's record encoding; those below 16,384 are cached.

    Source: Apache Kafka, "Message Format", "varint" (Protocol Buffers' zigzag encoding).
    """

    def __missing__(self, number: int) -> bytes:
        """Encode an integer that is not cached."""
        rest = (number << 1) ^ (number >> 63)
        encoded = bytearray()
        while rest > 0x7F:
            encoded.append(rest & 0x7F | 0x80)
            rest >>= 7
        encoded.append(rest)
        found = bytes(encoded)
        if 0 <= number < _CACHED_BELOW:
            self[number] = found
        return found


def with_length(content: bytes) -> bytes:
    """Prefix a key, a value or a header's name with its length."""
    return VARINTS[len(content)] + content


_CACHED_BELOW = 16_384
VARINTS = Varints()
