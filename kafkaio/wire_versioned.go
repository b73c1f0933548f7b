package kafkaio

// Requests come in two encodings: the older one, with lengths of fixed size, and since KIP-482 the flexible
// one, with lengths as varints, each one more than it says, and with tagged fields at the end of every
// structure. versionedReader and versionedWriter hide which.

// minFlexible is the least size of an element in the flexible encoding that is believed: its strings and
// arrays may take a single byte for their length.
const minFlexible = 4

type versionedReader struct {
	wireReader
	flexible bool
}

func (d *versionedReader) string() string {
	if d.flexible {
		return d.compactStr()
	}
	return d.str()
}

// array reads a number of elements that take at least size bytes each in the older encoding.
func (d *versionedReader) array(size int) int {
	if d.flexible {
		return d.compactCount(min(size, minFlexible))
	}
	return d.count(size)
}

// blob reads a byte array without copying it; a null one is nil.
func (d *versionedReader) blob() []byte {
	if !d.flexible {
		return d.bytes()
	}
	n := d.compactLen()
	if n < 0 {
		return nil
	}
	return d.take(int(n))
}

// end skips the tagged fields of a structure.
func (d *versionedReader) end() { d.tagged(func(uint64, *wireReader) {}) }

// tagged calls f with each tagged field of a structure.
func (d *versionedReader) tagged(f func(tag uint64, field *wireReader)) {
	if !d.flexible {
		return
	}
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		tag, size := d.uvarint(), d.uvarint()
		if size > uint64(d.left()) {
			d.fail("bad tag length")
			return
		}
		field := wireReader{b: d.take(int(size))}
		f(tag, &field)
		if field.err != nil && d.err == nil {
			d.err = field.err
		}
	}
}

type versionedWriter struct {
	*wireWriter
	flexible bool
}

func (e versionedWriter) string(s string) {
	if e.flexible {
		e.compactStr(s)
	} else {
		e.str(s)
	}
}

func (e versionedWriter) array(n int) {
	if e.flexible {
		e.compactLen(n)
	} else {
		e.i32(int32(n))
	}
}

// end writes that a structure has no tagged fields.
func (e versionedWriter) end() {
	if e.flexible {
		e.tags()
	}
}
