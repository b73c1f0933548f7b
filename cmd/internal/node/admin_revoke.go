package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// Tokens are taken back, and what was taken back is shown, through the admin port of any node:
//
//	POST /admin/revoke        {"subject":"alice"} or {"token_id":"…"}; "expires" and "reason" if you like
//	GET  /admin/revocations   {"revocations":[…]}
//
// The answer comes when the revocation is committed: then every node that is with the majority applies it, within
// a moment. The body must be said to be application/json, which a page of another site cannot do unasked; one that
// asks all the same is known by its Origin.

// RevokeRequest is the body of POST /admin/revoke. One of Subject and TokenID is set.
type RevokeRequest struct {
	Subject string `json:"subject"`
	TokenID string `json:"token_id"`
	// Expires is how long the revocation is to be kept, in unix milliseconds: to when those tokens have expired. Zero: to
	// when all that were issued until now have, by TIDEWIRE_AUTH_MAX_LIFETIME.
	Expires int64  `json:"expires"`
	Reason  string `json:"reason"` // for people
}

// RevocationStatus is one revocation. Times are unix milliseconds.
type RevocationStatus struct {
	Subject string `json:"subject,omitempty"`
	TokenID string `json:"token_id,omitempty"`
	// IssuedUpTo: of a subject, tokens issued at or before it are revoked, and those that do not say when.
	IssuedUpTo int64  `json:"issued_up_to,omitempty"`
	Expires    int64  `json:"expires"`
	Reason     string `json:"reason,omitempty"`
}

// RevokeAnswer is the answer to POST /admin/revoke.
type RevokeAnswer struct {
	Committed bool `json:"committed"` // always true
	RevocationStatus
}

// RevocationList is the answer to GET /admin/revocations: what this node has applied.
type RevocationList struct {
	Node        bridge.NodeID      `json:"node"`
	Revocations []RevocationStatus `json:"revocations"`
}

// maxRevokeBody bounds what is read of a request: its texts at their longest, escaped.
const maxRevokeBody = 8192

func (n *Node) revokeRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /admin/revoke", n.revoke)
	mux.HandleFunc("GET /admin/revocations", func(w http.ResponseWriter, _ *http.Request) {
		list := RevocationList{Node: n.cfg.NodeID, Revocations: []RevocationStatus{}}
		for _, r := range n.bridge.Revocations() {
			list.Revocations = append(list.Revocations, revocationStatus(r))
		}
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, list)
	})
}

func revocationStatus(r bridge.Revocation) RevocationStatus {
	s := RevocationStatus{Expires: r.Until, Reason: r.Reason}
	if r.By == bridge.BySubject {
		s.Subject, s.IssuedUpTo = r.Value, r.At
	} else {
		s.TokenID = r.Value
	}
	return s
}

// revoke answers POST /admin/revoke.
func (n *Node) revoke(w http.ResponseWriter, r *http.Request) {
	if n.cfg.Auth == nil {
		http.Error(w, "this node asks nobody for a token (TIDEWIRE_AUTH=none): there is nothing to revoke", http.StatusConflict)
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, "want a body of application/json", http.StatusUnsupportedMediaType)
		return
	}
	var req RevokeRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRevokeBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(&req)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		http.Error(w, fmt.Sprintf("the body has more than %d bytes", long.Limit), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, `want a JSON object such as {"subject":"alice"} or {"token_id":"…"}: `+err.Error(), http.StatusBadRequest)
		return
	}
	revocation, err := n.revocation(req, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !n.isUp() {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	log := n.log.With().Str("subject", req.Subject).Str("token_id", req.TokenID).Str("reason", req.Reason).Str("remote", r.RemoteAddr).Logger()
	if err := n.bridge.Revoke(r.Context(), revocation); err != nil {
		log.Warn().Err(err).Msg("tokens are not known to be revoked")
		status := http.StatusServiceUnavailable
		switch {
		case errors.Is(err, bridge.ErrTooManyRevocations):
			status = http.StatusInsufficientStorage
		case errors.Is(err, bridge.ErrOldBuilds):
			status = http.StatusConflict
		}
		http.Error(w, err.Error(), status)
		return
	}
	log.Info().Msg("tokens revoked")
	writeJSON(w, RevokeAnswer{Committed: true, RevocationStatus: revocationStatus(revocation)})
}

// revocation makes one of what was asked for at a time, where tokens are asked for.
func (n *Node) revocation(req RevokeRequest, now time.Time) (bridge.Revocation, error) {
	r := bridge.Revocation{By: bridge.BySubject, Value: req.Subject, Reason: req.Reason}
	if req.TokenID != "" {
		r.By, r.Value = bridge.ByTokenID, req.TokenID
	}
	if (req.Subject == "") == (req.TokenID == "") {
		return r, errors.New(`name whose tokens to revoke: "subject" or "token_id", one of them`)
	}
	// The clock of whoever issues tokens may be ahead of this one, by no more than is forgiven when a token is verified;
	// and by as much a token is taken after it has expired.
	leeway := n.cfg.Auth.Leeway
	r.At = now.Add(leeway).UnixMilli()
	r.Until = r.At + (n.tokenLifetime() + leeway + clockSlack).Milliseconds()
	if req.Expires != 0 {
		if req.Expires <= r.At {
			return r, fmt.Errorf("expires=%d is over: want unix milliseconds, such as %d", req.Expires, r.Until)
		}
		r.Until = req.Expires
	}
	return r, r.Validate()
}

// clockSlack is how much longer than it need be a revocation is kept: the clock of the node that lets it leave may be
// ahead of one that still takes the token.
const clockSlack = time.Minute

// foreverKept is how long a revocation is kept where tokens may live as long as they like.
const foreverKept = 10 * 365 * 24 * time.Hour

// tokenLifetime is how long tokens may live.
func (n *Node) tokenLifetime() time.Duration {
	if limit := n.cfg.Auth.MaxLifetime; limit > 0 {
		return limit
	}
	return foreverKept
}
