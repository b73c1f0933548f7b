package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

const revokeSynopsis = `revoke [-subject NAME | -token-id ID] [flags]

Takes tokens back, on all nodes, through the admin port of any of them. Without -subject and -token-id it
shows what was taken back.

  tidectl revoke                        what is revoked, until when
  tidectl revoke -subject alice         all tokens of alice that were issued until now: her sessions end, and
                                        a token issued later is taken
  tidectl revoke -token-id 7c1f         the token with this id (claim jti)

It has worked when it says so: then a majority of the nodes has it on disk. Asking again does no harm.
See docs/operations.md.`

// revocation is one of GET /admin/revocations, and part of the answer to POST /admin/revoke. Times are unix milliseconds.
type revocation struct {
	Subject    string `json:"subject,omitempty"`
	TokenID    string `json:"token_id,omitempty"`
	IssuedUpTo int64  `json:"issued_up_to,omitempty"`
	Expires    int64  `json:"expires"`
	Reason     string `json:"reason,omitempty"`
}

type revokeAnswer struct {
	Committed bool `json:"committed"`
	revocation
}

type revocationsAnswer struct {
	Node        string       `json:"node"`
	Revocations []revocation `json:"revocations"`
}

// maxRevocations bounds what is read of a list: as many as a cluster keeps, at their longest.
const maxRevocations = 256 << 20

func runRevoke(ctx context.Context, args []string, e env) error {
	f := flags("revoke", revokeSynopsis, e)
	admin := f.String("admin", or(e.get("TIDECTL_ADMIN"), defaultAdmin), "admin `addresses`, tried in this order (TIDECTL_ADMIN)")
	subject := f.String("subject", "", "whose tokens (claim sub)")
	tokenID := f.String("token-id", "", "which token (claim jti)")
	keep := f.Duration("keep", 0, "how long to remember it, such as 48h: until those tokens have expired; 0: as long as a token may live")
	reason := f.String("reason", "", "for people, at most 128 bytes")
	output := f.String("o", "table", "`form`: table or json")
	timeout := f.Duration("timeout", 15*time.Second, "how long it may take")
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	asked := *subject != "" || *tokenID != ""
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%w: revoke takes -subject or -token-id, not %q", errUsage, rest[0])
	case *output != "table" && *output != "json":
		return fmt.Errorf("%w: -o is table or json, not %q", errUsage, *output)
	case len(list(*admin)) == 0:
		return fmt.Errorf("%w: -admin is empty: name at least one address, as host:port", errUsage)
	case *subject != "" && *tokenID != "":
		return fmt.Errorf("%w: revoke takes -subject or -token-id, not both", errUsage)
	case !asked && (*reason != "" || *keep != 0), *keep < 0:
		return fmt.Errorf("%w: -reason and -keep (which is not negative) go with -subject or -token-id", errUsage)
	}
	// A script whose variable is empty must not take a list for a revocation.
	if !asked && flagGiven(f, "subject", "token-id") {
		return fmt.Errorf("%w: -subject or -token-id is empty", errUsage)
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	m := &membersCall{env: e, admin: list(*admin), json: *output == "json", out: e.out}
	if !asked {
		return m.revocations(ctx)
	}
	req := map[string]any{"reason": *reason}
	if *subject != "" {
		req["subject"] = *subject
	} else {
		req["token_id"] = *tokenID
	}
	if *keep > 0 {
		req["expires"] = time.Now().Add(*keep).UnixMilli()
	}
	return m.revoke(ctx, req)
}

// revoke has tokens revoked. Any node may be asked after another one that could not: twice is the same as once.
func (m *membersCall) revoke(ctx context.Context, req map[string]any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	resp, err := m.ask(ctx, http.MethodPost, "/admin/revoke", body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var a revokeAnswer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&a); err != nil {
		return fmt.Errorf("the answer is not Tidewire's (is this an admin address?): %w", err)
	}
	if !a.Committed {
		return errors.New("the answer does not say that it is committed (is this an admin address?)")
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(a)
	}
	fmt.Fprintf(m.out, "revoked: %s, committed; kept until %s\n", a.name(), unixMs(a.Expires))
	return nil
}

// revocations shows what is revoked.
func (m *membersCall) revocations(ctx context.Context) error {
	resp, err := m.ask(ctx, http.MethodGet, "/admin/revocations", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var a revocationsAnswer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRevocations)).Decode(&a); err != nil {
		return fmt.Errorf("the answer is not a list of revocations (is this an admin address?): %w", err)
	}
	if m.json {
		enc := json.NewEncoder(m.out)
		enc.SetIndent("", "  ")
		return enc.Encode(a)
	}
	t := tabwriter.NewWriter(m.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REVOKED\tISSUED UP TO\tKEPT UNTIL\tREASON")
	for _, r := range a.Revocations {
		issued := "any time"
		if r.TokenID == "" {
			issued = unixMs(r.IssuedUpTo)
		}
		reason := "-"
		if r.Reason != "" {
			reason = strconv.Quote(r.Reason)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.name(), issued, unixMs(r.Expires), reason)
	}
	return t.Flush()
}

// name quotes what clients' tokens say: nothing in it can act upon a terminal.
func (r revocation) name() string {
	if r.TokenID != "" {
		return "token " + strconv.Quote(r.TokenID)
	}
	return "subject " + strconv.Quote(r.Subject)
}

// flagGiven says whether any of these flags was given.
func flagGiven(f *flagSet, names ...string) (given bool) {
	f.Visit(func(g *flag.Flag) { given = given || slices.Contains(names, g.Name) })
	return given
}

func unixMs(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
