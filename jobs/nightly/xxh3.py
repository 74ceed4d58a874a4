"""XXH3-128 of whole 64-bit words in plain Python: seine's `digest` of a batch, computed again without seine.

A hash of its own, so that a fault of the program that wrote a batch cannot hide in the check of it.
"""
import struct

_MASK = (1 << 64) - 1
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
_P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_BLOCK = 1024  # bytes between two scrambles of the accumulators


def _word(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def _avalanche(x):
    x ^= x >> 37
    x = x * 0x165667919E3779F9 & _MASK
    return x ^ x >> 32


def _fold(a, b):
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def _mix16(data, at, secret):
    return _fold(_word(data, at) ^ _word(_SECRET, secret), _word(data, at + 8) ^ _word(_SECRET, secret + 8))


def _one_word(data):
    keyed = _word(data, 0) ^ _word(_SECRET, 16) ^ _word(_SECRET, 24)
    product = keyed * (_P64[0] + 32)
    low, high = product & _MASK, product >> 64
    high = high + (low << 1) & _MASK
    low ^= high >> 3
    low = (low ^ low >> 35) * 0x9FB21C651E98DF25 & _MASK
    return _avalanche(high), low ^ low >> 28


def _two_words(data):
    flip_low = _word(_SECRET, 32) ^ _word(_SECRET, 40)
    second = _word(data, 8) ^ _word(_SECRET, 48) ^ _word(_SECRET, 56)
    product = (_word(data, 0) ^ _word(data, 8) ^ flip_low) * _P64[0]
    low, high = (product & _MASK) + (15 << 54) & _MASK, product >> 64
    high = high + second + (second & 0xFFFFFFFF) * (_P32[1] - 1) & _MASK
    low ^= int.from_bytes(high.to_bytes(8, "little"), "big")
    product = low * _P64[1]
    return _avalanche((product >> 64) + high * _P64[1] & _MASK), _avalanche(product & _MASK)


def _middle(data):
    """Up to 240 bytes: pairs of 16 from both ends (up to 128 bytes) or in order."""
    size = len(data)
    low, high = size * _P64[0] & _MASK, 0

    def mix(one, two, secret):
        nonlocal low, high
        low = (low + _mix16(data, one, secret) & _MASK) ^ (_word(data, two) + _word(data, two + 8) & _MASK)
        high = (high + _mix16(data, two, secret + 16) & _MASK) ^ (_word(data, one) + _word(data, one + 8) & _MASK)

    if size <= 128:
        for i in reversed(range((size + 31) // 32)):
            mix(16 * i, size - 16 * (i + 1), 32 * i)
    else:
        for i in range(4):
            mix(32 * i, 32 * i + 16, 32 * i)
        low, high = _avalanche(low), _avalanche(high)
        for i in range(4, size // 32):
            mix(32 * i, 32 * i + 16, 3 + 32 * (i - 4))
        mix(size - 16, size - 32, 136 - 17 - 16)
    end = low * _P64[0] + high * _P64[3] + size * _P64[1] & _MASK
    return -_avalanche(end) & _MASK, _avalanche(low + high & _MASK)


def _long(data):
    lanes = [_P32[2], *_P64[:4], _P32[1], _P64[4], _P32[0]]
    secrets = [struct.unpack_from("<8Q", _SECRET, at) for at in range(0, 129, 8)]

    def take(at, secret):
        values = struct.unpack_from("<8Q", data, at)
        for i in range(8):
            key = values[i] ^ secret[i]
            lanes[i ^ 1] = lanes[i ^ 1] + values[i] & _MASK
            lanes[i] = lanes[i] + (key & 0xFFFFFFFF) * (key >> 32) & _MASK

    for block in range(0, len(data), _BLOCK):
        end = min(block + _BLOCK, (len(data) - 1) // 64 * 64)
        for at in range(block, end, 64):
            take(at, secrets[(at - block) // 64])
        if block + _BLOCK < len(data):
            for i in range(8):
                lanes[i] = (lanes[i] ^ lanes[i] >> 47 ^ secrets[16][i]) * _P32[0] & _MASK
    take(len(data) - 64, struct.unpack_from("<8Q", _SECRET, 121))

    def merge(secret, start):
        for i in range(0, 8, 2):
            start += _fold(lanes[i] ^ _word(_SECRET, secret + 8 * i), lanes[i + 1] ^ _word(_SECRET, secret + 8 * i + 8))
        return _avalanche(start & _MASK)

    return merge(117, ~(len(data) * _P64[1]) & _MASK), merge(11, len(data) * _P64[0] & _MASK)


def digest_of(rows):
    """XXH3-128 in hex of these whole numbers as little-endian int64: the `digest` of a batch file."""
    data = struct.pack(f"<{len(rows)}q", *rows)
    ways = ((8, _one_word), (16, _two_words), (240, _middle))
    high, low = next((way for most, way in ways if len(data) <= most), _long)(data)
    return f"{high:016x}{low:016x}"
