package kafkaio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// The codecs of record batches. Each result is a buffer of its own, as records keep slices of it, and
// never more than maxDecompressed bytes, whatever the compressed form announces: a batch is limited by
// the topic's max.message.bytes only in its compressed form.
const maxDecompressed = 128 << 20

// Codec numbers in a batch's attributes.
const (
	codecGzip   = 1
	codecSnappy = 2
	codecLZ4    = 3
	codecZstd   = 4
)

var errTooLarge = fmt.Errorf("%w: more than %d bytes decompressed", ErrBatchTooLarge, maxDecompressed)

// decompress returns the records of a batch. Errors wrap ErrMalformed or ErrBatchTooLarge.
func decompress(codec uint16, src []byte) ([]byte, error) {
	var dst []byte
	var err error
	var name string
	switch codec {
	case codecGzip:
		name = "gzip"
		dst, err = gunzip(src)
	case codecSnappy:
		name = "snappy"
		dst, err = unsnappy(src)
	case codecLZ4:
		name = "lz4"
		dst, err = unlz4(src)
	case codecZstd:
		name = "zstd"
		dst, err = unzstd(src)
	default:
		return nil, fmt.Errorf("%w: unknown codec %d", ErrMalformed, codec)
	}
	if err != nil && !errors.Is(err, ErrBatchTooLarge) {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, name, err)
	}
	return dst, err
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

func gunzip(src []byte) ([]byte, error) {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return nil, err
	}
	return readCapped(r, len(src))
}

var lz4Readers = sync.Pool{New: func() any { return lz4.NewReader(nil) }}

func unlz4(src []byte) ([]byte, error) {
	r := lz4Readers.Get().(*lz4.Reader)
	r.Reset(bytes.NewReader(src))
	dst, err := readCapped(r, len(src))
	if err == nil {
		// After an error the reader's state is not to be trusted with the next batch.
		lz4Readers.Put(r)
	}
	return dst, err
}

// readCapped reads all of r into a new buffer that starts at about four times the compressed size.
func readCapped(r io.Reader, compressed int) ([]byte, error) {
	dst := make([]byte, 0, min(max(4*compressed, 512), maxDecompressed+1))
	for {
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case err == io.EOF && len(dst) <= maxDecompressed:
			return dst, nil
		case len(dst) > maxDecompressed:
			return nil, errTooLarge
		case err != nil:
			return nil, err
		}
		if len(dst) == cap(dst) {
			bigger := make([]byte, len(dst), min(2*cap(dst), maxDecompressed+1))
			copy(bigger, dst)
			dst = bigger
		}
	}
}

// zstdDecoder is safe for concurrent use in DecodeAll, and starts no goroutines for it.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxDecompressed))
})

func unzstd(src []byte) ([]byte, error) {
	dst, err := unzstdAny(src)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return nil, errTooLarge
	}
	return dst, err
}

func unzstdAny(src []byte) ([]byte, error) {
	// DecodeAll allocates what the frame announces. An announcement that is out of all proportion is
	// not taken at its word: such a frame is read piece by piece.
	const plain, ratio = 1 << 20, 64
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return nil, err
	}
	if h.FrameContentSize > plain && h.FrameContentSize/ratio > uint64(len(src)) {
		r, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxDecompressed))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readCapped(r, len(src))
	}
	dec, err := zstdDecoder()
	if err != nil {
		return nil, err
	}
	return dec.DecodeAll(src, nil)
}

// xerialMagic starts the framing of the Java snappy library: the magic, two versions (i32 each), then
// blocks with their length (i32) before them. Other clients send one bare block.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const xerialHeader = 16

func unsnappy(src []byte) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return unsnappyBlock(nil, src)
	}
	if len(src) < xerialHeader {
		return nil, io.ErrUnexpectedEOF
	}
	var dst []byte
	for rest := src[xerialHeader:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(rest)
		rest = rest[4:]
		if uint64(n) > uint64(len(rest)) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if dst, err = unsnappyBlock(dst, rest[:n]); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	return dst, nil
}

// unsnappyBlock appends a decoded block to dst.
func unsnappyBlock(dst, block []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	// Snappy's copies make at most 64 bytes out of three, so a small block cannot claim a large result.
	if len(dst)+n > maxDecompressed {
		return nil, errTooLarge
	}
	if n > 32*len(block)+64 {
		return nil, snappy.ErrCorrupt
	}
	start := len(dst)
	if cap(dst)-start < n {
		bigger := make([]byte, start, max(start+n, 2*cap(dst)))
		copy(bigger, dst)
		dst = bigger
	}
	out, err := snappy.Decode(dst[start:start+n:start+n], block)
	if err != nil {
		return nil, err
	}
	if len(out) != n {
		return nil, snappy.ErrCorrupt
	}
	return dst[:start+n], nil
}
