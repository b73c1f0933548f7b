package verify

import (
	"fmt"
	"testing"
	"time"
)

func TestSilences(t *testing.T) {
	s := newScene()
	c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2)
	from := s.now
	s.now += 300 * time.Millisecond
	c.msg(3, 4, 5, 6, 7, 8, 9)
	s.now += time.Hour // nothing is written: no silence
	s.write("r10", "/t/k0")
	c.msg(10)
	r := Judge(s.History)
	if r.Silence.For != 301*time.Millisecond || r.Silence.From != from || r.Silence.Node != "n1" || r.Silence.Partition != "t-0" {
		t.Errorf("longest silence %+v, want 301ms from %s", r.Silence, from)
	}
	if got := Silences(s.History, from+time.Second, from+time.Minute); len(got) != 0 {
		t.Errorf("silences of another time: %+v", got)
	}
	s.Away = []Away{{Node: "n1", From: from + time.Millisecond, To: from + 2*time.Millisecond}}
	if r := Judge(s.History); r.Silence.For != 0 {
		t.Errorf("a silence of a node that was away: %+v", r.Silence)
	}
	s.Away[0].Node = "n2"
	s.Subscribers[0].Slow = true
	if r := Judge(s.History); r.Silence.For != 0 {
		t.Errorf("a silence of a slow reader: %+v", r.Silence)
	}
}

func TestTimesToResume(t *testing.T) {
	s := newScene()
	c := s.client("/t/*").begin(Pos{}).live()
	for i := range int64(10) {
		c.msg(i).cut()
		s.now += time.Duration(i+1) * 100 * time.Millisecond
		c.resume("n2", posAt(i))
		s.now += time.Second
		c.live()
	}
	c.add(Event{Kind: Disconnect, Detail: &Detail{By: "draining"}}).connect("n3")
	r := Judge(s.History)
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	got := r.ToResume["all"]
	want := fmt.Sprint(Percentiles{10, 500 * time.Millisecond, 900 * time.Millisecond, time.Second, time.Second})
	if fmt.Sprint(Percentiles{got.Count, round(got.P50), round(got.P90), round(got.P99), round(got.Max)}) != want {
		t.Errorf("to resume %+v, want %s", got, want)
	}
	if r.ToResume[Ours] != got || r.ToCatchUp["all"].Count != 10 || round(r.ToCatchUp["all"].Max) != 2*time.Second {
		t.Errorf("%+v, %+v", r.ToResume, r.ToCatchUp)
	}
	if r.Unended != 1 || r.Disconnects != 11 || r.Resumes != 10 {
		t.Errorf("%d not ended, %d disconnects, %d resumes; want 1, 11, 10", r.Unended, r.Disconnects, r.Resumes)
	}
}
