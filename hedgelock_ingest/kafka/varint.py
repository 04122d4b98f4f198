"""Kafka's numbers of variable length."""


class Varints(dict[int, bytes]):
    """
    Numbers as Kafka writes them in records; those of usual sizes are remembered.

    Source: Apache Kafka, "Message Format", "varint" (Protocol Buffers' zigzag encoding).
    """

    def __missing__(self, number: int) -> bytes:
        """Encode one that is not remembered."""
        rest = (number << 1) ^ (number >> 63)
        encoded = bytearray()
        while rest > 0x7F:
            encoded.append(rest & 0x7F | 0x80)
            rest >>= 7
        encoded.append(rest)
        found = bytes(encoded)
        if 0 <= number < _REMEMBERED_BELOW:
            self[number] = found
        return found


def with_length(content: bytes) -> bytes:
    """Put its length before a key, a value or a header's name."""
    return VARINTS[len(content)] + content


_REMEMBERED_BELOW = 16_384
VARINTS = Varints()
