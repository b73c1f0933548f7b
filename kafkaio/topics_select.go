package kafkaio

import (
	"fmt"
	"regexp"
	"strings"
)

// Selectors says which topics are meant: by name, and by regular expressions that must match the whole
// name. The zero value selects none.
type Selectors struct {
	names    map[string]bool
	patterns []*regexp.Regexp
}

// maxTopicName is Kafka's limit.
const maxTopicName = 249

// ParseSelectors reads a comma separated list of topic names and /regular expressions/ (RE2; a comma
// may be part of one). Space around an entry is ignored; an empty list selects nothing.
func ParseSelectors(list string) (Selectors, error) {
	s := Selectors{names: map[string]bool{}}
	for rest := strings.TrimSpace(list); rest != ""; {
		var item string
		if rest[0] == '/' {
			end := closingSlash(rest)
			if end < 0 {
				return Selectors{}, fmt.Errorf("topic pattern %q has no closing slash", rest)
			}
			item, rest = rest[1:end], rest[end+1:]
			if item == "" {
				return Selectors{}, fmt.Errorf("topic pattern // is empty")
			}
			re, err := regexp.Compile("^(?:" + item + ")$")
			if err != nil {
				return Selectors{}, fmt.Errorf("topic pattern /%s/: %w", item, err)
			}
			s.patterns = append(s.patterns, re)
		} else {
			item, _, _ = strings.Cut(rest, ",")
			rest = rest[len(item):]
			item = strings.TrimSpace(item)
			if err := checkTopicName(item); err != nil {
				return Selectors{}, err
			}
			s.names[item] = true
		}
		rest = strings.TrimSpace(rest)
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			return Selectors{}, fmt.Errorf("topics: a comma is missing before %q", rest)
		}
		if rest = strings.TrimSpace(rest[1:]); rest == "" {
			return Selectors{}, fmt.Errorf("topics: nothing follows the last comma of %q", list)
		}
	}
	return s, nil
}

// closingSlash finds the slash that ends the pattern at the start of s: the first one that is followed
// by a comma or by nothing. Slashes cannot be in a topic's name, so a pattern hardly holds one.
func closingSlash(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != '/' {
			continue
		}
		after := strings.TrimLeft(s[i+1:], " \t")
		if after == "" || after[0] == ',' {
			return i
		}
	}
	return -1
}

// checkTopicName says whether Kafka would take name for a topic.
func checkTopicName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("topics: an entry is empty")
	case name == "." || name == "..":
		return fmt.Errorf("topic name %q is not allowed in Kafka", name)
	case len(name) > maxTopicName:
		return fmt.Errorf("topic name %.20q... is longer than %d characters", name, maxTopicName)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-' {
			return fmt.Errorf("topic name %q: the character %q is not allowed in Kafka (regular expressions go between slashes)", name, r)
		}
	}
	return nil
}

// Empty says whether nothing can match.
func (s Selectors) Empty() bool { return len(s.names) == 0 && len(s.patterns) == 0 }

// Match says whether the topic is selected. A regular expression never selects an internal topic (one
// that Kafka marks as such, or whose name starts with two underscores, as Kafka's own do); its full
// name does.
func (s Selectors) Match(topic string, internal bool) bool {
	if s.names[topic] {
		return true
	}
	if internal || strings.HasPrefix(topic, "__") {
		return false
	}
	for _, re := range s.patterns {
		if re.MatchString(topic) {
			return true
		}
	}
	return false
}
