package main

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
)

// quote is the value of a record of topic prices.
type quote struct {
	Symbol string  `json:"symbol"`
	Bid    float64 `json:"bid"`
	Ask    float64 `json:"ask"`
	Count  int     `json:"n"` // of this symbol since the demo's start
}

// instrument is one key of topic prices, whose price walks at random but is drawn back to where it began,
// so that it looks right after days too.
type instrument struct {
	symbol      string
	home, price float64
	digits      int
	count       int
}

func instruments() []*instrument {
	var all []*instrument
	for _, i := range []struct {
		symbol string
		price  float64
		digits int
	}{
		{"EURUSD", 1.0842, 5}, {"GBPUSD", 1.2671, 5}, {"USDJPY", 151.32, 3}, {"USDCHF", 0.8834, 5}, {"AUDUSD", 0.6573, 5},
		{"USDCAD", 1.3721, 5}, {"NZDUSD", 0.6014, 5}, {"EURGBP", 0.8557, 5}, {"EURJPY", 164.05, 3}, {"GBPJPY", 191.74, 3},
		{"EURCHF", 0.9577, 5}, {"EURSEK", 11.234, 4}, {"EURNOK", 11.641, 4}, {"USDMXN", 17.052, 4}, {"USDSGD", 1.3448, 5},
		{"XAUUSD", 2338.4, 2}, {"XAGUSD", 27.46, 3}, {"BTCUSD", 67120, 1}, {"ETHUSD", 3312.5, 2}, {"UKOIL", 86.3, 2},
	} {
		all = append(all, &instrument{symbol: i.symbol, home: i.price, price: i.price, digits: i.digits})
	}
	return all
}

// step moves the price and returns the record's value.
func (i *instrument) step() quote {
	i.price += i.price*rand.NormFloat64()*0.0002 + (i.home-i.price)*0.001
	i.price = max(i.price, i.home/10)
	i.count++
	scale := math.Pow10(i.digits)
	round := func(p float64) float64 { return math.Round(p*scale) / scale }
	return quote{Symbol: i.symbol, Bid: round(i.price), Ask: round(i.price * 1.0001), Count: i.count}
}

// produce writes rate records a second to topic prices until ctx ends. What Kafka cannot take now is
// dropped: prices are stale by the time it is back.
func (k *kafka) produce(ctx context.Context, rate int, log zerolog.Logger) {
	all := instruments()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var complained time.Time // touched by promises, which kgo calls one at a time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i := all[rand.IntN(len(all))]
		value, err := json.Marshal(i.step())
		if err != nil { // a number that JSON does not have: start again from home
			i.price = i.home
			continue
		}
		k.client.TryProduce(ctx, &kgo.Record{Topic: "prices", Key: []byte(i.symbol), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil && ctx.Err() == nil && time.Since(complained) > 10*time.Second {
				complained = time.Now()
				log.Warn().Err(err).Msg("a sample price could not be written to Kafka")
			}
		})
	}
}
