package wsedge

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// jsonTexts are texts that are JSON, or nearly so.
func jsonTexts() []string {
	texts := []string{
		"", " ", "{", "}", "[", "]", "[]", "{}", " [ ] ", "\t{\r\n}", "[[]]", "[{}]", "{\"a\":[]}", "[}", "{]", "[[}]", "[{]}", "[]]", "{}}", "[1]2", "1 2",
		"null", "true", "false", "nul", "nulll", "tru", "True", "fals", "falsey", "nan", "[null,true,false]", "[nulltrue]",
		"0", "-", "-0", "00", "01", "-01", "1", "12", "1.", ".5", "1.5", "1.5e", "1e5", "1E+5", "1e-5", "1e+", "0e0", "0.0", "0x1", "1_0", "+1", "-a", "1a", "[1,2]", "[1,]", "[,1]", "[1 2]",
		`""`, `"`, `"a`, `"a"`, `"a"b`, `"\"`, `"\\"`, `"\""`, `"\/\b\f\n\r\t"`, `"\a"`, `"\u"`, `"\u12"`, `"\u123"`, `"\u1234"`, `"\u12aF"`, `"\u12ag"`, `"\u12:0"`, `"\ud800"`, `"\U1234"`,
		"\"a\x00\"", "\"a\x1f\"", "\"a\x20\"", "\"a\x7f\"", "\"\n\"", "\"\xff\"", "\"\x80\x81\"", "\"ü€😀\"",
		`{"a":1}`, `{"a":1,}`, `{"a":1,"b"}`, `{"a"}`, `{"a":}`, `{"a" : 1 , "b" : {"c":[1]}}`, `{a:1}`, `{1:1}`, `{"a":1 "b":2}`, `{"a",1}`, `["a":1]`, `{,}`, `{"a":1}}`, `{"a":1};`, "{\"a\"\x00:1}",
		"\ufeff1", "\x00", "/**/1", "'a'",
	}
	for _, n := range []int{1, 63, 64, 65, smallNesting - 1, smallNesting, smallNesting + 1, maxNesting, maxNesting + 1} {
		open, shut := strings.Repeat("[", n), strings.Repeat("]", n)
		objects := strings.Repeat(`{"a":`, n)
		texts = append(texts, open+shut, open+"1"+shut, open, open+shut[1:], open+shut+"]", objects+"1"+strings.Repeat("}", n), objects+"1"+shut,
			strings.Repeat(`[{"a":`, n/2)+"0"+strings.Repeat("}]", n/2), open[1:]+"{}"+shut[1:], open[1:]+"{]"+shut[1:])
	}
	return texts
}

// everyByte has each byte at each place of a word of eight in a string, and outside.
func everyByte() (texts []string) {
	for c := range 256 {
		for at := range 17 {
			plain := strings.Repeat("p", at) + string([]byte{byte(c)}) + strings.Repeat("q", 16-at)
			texts = append(texts, `"`+plain+`"`)
		}
		texts = append(texts, "["+string([]byte{byte(c)})+"]", string([]byte{byte(c)})+"1", "1"+string([]byte{byte(c)}), `"\`+string([]byte{byte(c)})+`"`)
	}
	return texts
}

func TestValidJSON(t *testing.T) {
	valid := 0
	for _, text := range append(jsonTexts(), everyByte()...) {
		want := json.Valid([]byte(text))
		if got := validJSON([]byte(text)); got != want {
			t.Errorf("%.100q: %v, encoding/json says %v", text, got, want)
		}
		if want {
			valid++
		}
	}
	if valid < 1000 {
		t.Errorf("only %d of the texts are JSON", valid)
	}
}

// FuzzValidJSON holds it against encoding/json.
func FuzzValidJSON(f *testing.F) {
	for _, text := range jsonTexts() {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := validJSON(text), json.Valid(text); got != want {
			t.Errorf("%q: %v, encoding/json says %v", text, got, want)
		}
	})
}

func BenchmarkValidJSON(b *testing.B) {
	quotes := make([]map[string]any, 8)
	for i := range quotes {
		quotes[i] = map[string]any{"symbol": "EURUSD", "bid": 1.0842 + float64(i), "ask": 1.0843, "at": 1764115200000 + i, "open": i%2 == 0}
	}
	structured, err := json.Marshal(quotes)
	if err != nil {
		b.Fatal(err)
	}
	texts := map[string][]byte{
		"record":   structured,
		"string":   []byte(strconv.Quote(strings.Repeat("x", 500))),
		"megabyte": []byte(`{"op":"auth","token":"` + strings.Repeat("abcdefgh.-_", 90_000) + `"}`),
	}
	for name, text := range texts {
		for which, valid := range map[string]func([]byte) bool{"ours": validJSON, "encoding-json": json.Valid} {
			b.Run(name+"/"+which, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					if !valid(text) {
						b.Fatal("it is JSON")
					}
				}
			})
		}
	}
}
