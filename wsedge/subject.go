package wsedge

import "github.com/tidewire/tidewire/wsedge/subject"

// The grammar of subjects is a package of its own, so that rights, which are subjects too, can be reasoned about
// without an edge.
type (
	Subject     = subject.Subject
	SubjectKind = subject.Kind
)

const (
	NullSubject   = subject.NullKey
	KeySubject    = subject.OneKey
	TopicPattern  = subject.WholeTopic
	PrefixPattern = subject.KeyPrefix
)

// ParseSubject reads a subject or pattern. The error is an *OpError with code bad_subject that says what
// would be right.
func ParseSubject(text string) (Subject, error) {
	s, err := subject.Parse(text)
	if err != nil {
		return Subject{}, badSubject(err.Error())
	}
	return s, nil
}

func appendKeyText(dst, key []byte) []byte { return subject.AppendKey(dst, key) }
