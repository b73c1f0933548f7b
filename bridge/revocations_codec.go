package bridge

import "encoding/binary"

// How revocations are written, in an entry of group 0's log and in its snapshot:
//
//	revocations = count revocation…
//	revocation  = by(1) value at until−at reason
//
// In an entry the proposer's time, in unix milliseconds, comes first (entry.go). In a snapshot they are in the
// order of their keys, none twice, so that the same set gives the same bytes.

// revokeOp adds revocations; those that have expired at Now leave. With none to add it does only that.
type revokeOp struct {
	Now         int64 // the proposer's clock, unix milliseconds
	Revocations []Revocation
}

// minRevocation is the least that one takes; it bounds what a count may claim.
const minRevocation = 6

func (o *revokeOp) appendTo(b []byte) []byte {
	b = binary.AppendUvarint(append(b, kindRevoke), uint64(o.Now))
	return appendRevocations(b, o.Revocations)
}

func appendRevocations(b []byte, list []Revocation) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		r := &list[i]
		b = appendString(append(b, byte(r.By)), r.Value)
		b = binary.AppendUvarint(b, uint64(r.At))
		b = binary.AppendUvarint(b, uint64(r.Until-r.At))
		b = appendString(b, r.Reason)
	}
	return b
}

func (r *reader) revoke() *revokeOp {
	return &revokeOp{Now: r.unixMs(), Revocations: r.revocations()}
}

// unixMs reads a time that can be believed.
func (r *reader) unixMs() int64 {
	v := r.uvarint()
	if v > maxUnixMs {
		r.fail()
		return 0
	}
	return int64(v)
}

func (r *reader) revocations() []Revocation {
	n := r.count(minRevocation)
	if n > MaxRevocations {
		r.fail()
		return nil
	}
	var list []Revocation
	for range n {
		v := Revocation{By: RevokeBy(r.byte()), Value: r.string(), At: r.unixMs()}
		v.Until = v.At + r.unixMs()
		v.Reason = r.string()
		if r.err == nil && v.Validate() != nil {
			r.fail()
		}
		if r.err != nil {
			return nil
		}
		list = append(list, v)
	}
	return list
}

// revocationSet reads what a snapshot holds of them.
func (r *reader) revocationSet() revocationSet {
	list := r.revocations()
	s := make(revocationSet, len(list))
	for i := range list {
		v := &list[i]
		if i > 0 && compareRevocations(&list[i-1], v) >= 0 {
			r.fail()
			return nil
		}
		s[revocationKey{v.By, v.Value}] = revocationTerms{v.At, v.Until, v.Reason}
	}
	return s
}
