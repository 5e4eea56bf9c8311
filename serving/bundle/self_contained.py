"""Finds what an ONNX file refers to outside itself, so that every byte a model reads is one that was hashed.

ONNX may keep weights in other files (`TensorProto.external_data`), anywhere below a model's nodes and subgraphs. An
ONNX file is a tree of protobuf messages, and this walks it by their field numbers (onnx.proto3) without the onnx
package, which what serves does without. Weights inside the file are stepped over, not read.
"""

from collections.abc import Iterator

from segue.errors import BundleError

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # How a field is encoded.
# Of each message that can hold a tensor: the fields that lead to one, and what they hold.
FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
}  # fmt: skip
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14  # Fields of a TensorProto; location 0: in the file.


class _NotProtobufError(Exception):
    """Bytes that are not what they should be."""


def check_self_contained(content: bytes, name: str) -> None:
    """Refuse an ONNX file that keeps weights elsewhere.

    Args:
        content: the bytes of the file.
        name: the file's name, for the message.

    Raises:
        BundleError: a tensor of the file is in another one, or the bytes are not ONNX.
    """
    view = memoryview(content)
    pending = [("ModelProto", view)]
    try:
        while pending:
            kind, message = pending.pop()
            if kind == "TensorProto":
                _check_tensor(message, name)
                continue
            inner = FIELDS[kind]
            for number, value in _fields(message):
                if number in inner and isinstance(value, memoryview):
                    pending.append((inner[number], value))
    except (_NotProtobufError, IndexError):
        raise BundleError(f"{name}: expected an ONNX model, found other bytes, or one cut off") from None


def _check_tensor(tensor: memoryview, name: str) -> None:
    called, elsewhere = "", False
    for number, value in _fields(tensor):
        if number == TENSOR_NAME and isinstance(value, memoryview):
            called = bytes(value).decode(errors="replace")
        elif number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
            elsewhere = True
    if elsewhere:
        raise BundleError(
            f"{name}: expected all weights inside the file, found those of {called or 'a tensor'!r} in another one "
            "(ONNX external data), which no sha256 of the manifest covers. Save the model as one file and export it."
        )


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of every field; the value of a number of fixed width is 0, for nothing here needs it."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        encoding = key & 7
        if encoding == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if encoding == LENGTH:
            length, at = _varint(message, at)
        elif encoding in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if encoding == EIGHT_BYTES else 4
        else:
            raise _NotProtobufError
        if at + length > len(message):
            raise _NotProtobufError
        yield key >> 3, message[at : at + length] if encoding == LENGTH else 0
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where the next byte is."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _NotProtobufError
