package bench

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestValue(t *testing.T) {
	for _, size := range []int{MinSize, 100, 512} {
		v := appendValue(nil, 1700000000123456789, 42, size)
		var parsed struct {
			T int64
			N string
		}
		if err := json.Unmarshal(v, &parsed); err != nil || len(v) != size || parsed.T != 1700000000123456789 || parsed.N != "0000000042" {
			t.Fatalf("%d bytes, %v: %s", len(v), err, v)
		}
		v = append(append([]byte(`{"op":"msg","data":`), v...), '}')
		at, n, rest, found, err := nextStamp(v)
		if at != 1700000000123456789 || n != 42 || !found || err != nil || len(rest) == 0 {
			t.Fatal(at, n, found, err)
		}
		setStamp(v, len(`{"op":"msg","data":`), 1800000000000000001, 9999999999)
		if at, n, _, found, err = nextStamp(v); at != 1800000000000000001 || n != 9999999999 || !found || err != nil {
			t.Fatal(at, n, found, err)
		}
	}
}

func TestStampsOfOthers(t *testing.T) {
	if _, _, _, found, err := nextStamp([]byte(`{"op":"msg","data":{"x":1}}`)); found || err != nil {
		t.Error(found, err)
	}
	for _, s := range []string{`{"t":1}`, `{"t":17000000000000000xx,"n":"0000000042"`, `{"t":1700000000000000000,"m":"0000000042"`, `{"t":1700000000000000000,"n":"00000000-2"`} {
		if _, _, _, _, err := nextStamp([]byte(s)); !errors.Is(err, errValue) {
			t.Errorf("%s: %v", s, err)
		}
	}
}
