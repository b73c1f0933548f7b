package faults

import (
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// clientScenarios are those in which it is the clients who make trouble.
func clientScenarios() []Scenario {
	return []Scenario{
		{Name: "thrown-out", About: "600 subscribers lose their node at once and resume elsewhere", Resume: 5 * time.Second,
			Load: func(o *verify.Options) { o.KeySubs, o.Rate, o.Roamers, o.Histories = 600, 100, -1, -1 }, Run: repeat(2, killOne(false))},
		{Name: "slow-readers", About: "ten readers at 1 KB/s, with a cache too small for them, while a coordinator is killed", Settle: 2 * time.Minute,
			Load: func(o *verify.Options) { o.SlowSubs, o.SlowRate, o.Rate = 10, 1024, 400 },
			Env:  []string{"TIDEWIRE_CACHE_BYTES=4MiB"}, Run: repeat(2, killOne(false))},
		{Name: "flood", About: "publishers that send as fast as they can, while a coordinator is killed",
			Load: func(o *verify.Options) { o.Publishers, o.PublishRate = 8, 800 }, Run: repeat(2, killOne(false))},
	}
}
