package tidewire_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Patterns of the scenarios (docs/clients.md): "$name" stands for a value that is bound where it is first met
// and must be the same from then on, "$_" for anything, or nothing.

// optional is what an op may leave out or say, whichever the client likes.
var optional = map[string]any{"history": 0.0, "conflate_ms": 0.0, "ack": "kafka", "headers": map[string]any{}}

// plain is a value as encoding/json reads it.
func plain(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// matches returns why value does not fit the pattern. With exact a field that the pattern does not name must
// be missing or have its default.
func matches(pattern, value any, vars map[string]any, exact bool, path string) error {
	differs := fmt.Errorf("%s: %v is not %v", path, value, pattern)
	switch p := pattern.(type) {
	case string:
		if p == "$_" {
			return nil
		}
		if !strings.HasPrefix(p, "$") {
			break
		}
		bound, ok := vars[p]
		if !ok {
			if value == nil {
				return fmt.Errorf("%s is missing", path)
			}
			vars[p] = value
			return nil
		}
		pattern = bound
	case []any:
		v, ok := value.([]any)
		if !ok || len(v) != len(p) {
			return differs
		}
		p, v = ordered(p), ordered(v)
		for i := range p {
			if err := matches(p[i], v[i], vars, exact, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		v, ok := value.(map[string]any)
		if !ok {
			return differs
		}
		for k := range p {
			if _, ok := v[k]; !ok && p[k] != "$_" {
				return fmt.Errorf("%s.%s is missing in %v", path, k, v)
			}
			if err := matches(p[k], v[k], vars, exact, path+"."+k); err != nil {
				return err
			}
		}
		for k := range v {
			if _, named := p[k]; exact && path == "" && !named && !reflect.DeepEqual(v[k], optional[k]) {
				return fmt.Errorf(".%s is %v and should not be there", k, v[k])
			}
		}
		return nil
	}
	if !reflect.DeepEqual(pattern, value) {
		return differs
	}
	return nil
}

// ordered puts a vector in the order of its partitions.
func ordered(v []any) []any {
	partition := func(p any) (float64, bool) {
		list, ok := p.([]any)
		if !ok || len(list) != 3 {
			return 0, false
		}
		n, ok := list[0].(float64)
		return n, ok
	}
	for _, p := range v {
		if _, ok := partition(p); !ok {
			return v
		}
	}
	return slices.SortedFunc(slices.Values(v), func(a, b any) int {
		x, _ := partition(a)
		y, _ := partition(b)
		return int(x - y)
	})
}

// fill puts values in the place of variables in what the server says.
func fill(template any, vars map[string]any, addr func(string) string) (any, error) {
	switch x := template.(type) {
	case string:
		if ms, ok := strings.CutPrefix(x, "$now"); ok {
			n, err := strconv.ParseInt(ms, 10, 64)
			return time.Now().UnixMilli() + n, err
		}
		if node, ok := strings.CutPrefix(x, "$addr:"); ok {
			return addr(node), nil
		}
		if !strings.HasPrefix(x, "$") {
			return x, nil
		}
		v, ok := vars[x]
		if !ok {
			return nil, fmt.Errorf("%s is not bound yet", x)
		}
		return v, nil
	case []any:
		out := make([]any, len(x))
		for i := range x {
			var err error
			if out[i], err = fill(x[i], vars, addr); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := maps.Clone(x)
		for k := range x {
			var err error
			if out[k], err = fill(x[k], vars, addr); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return template, nil
}
