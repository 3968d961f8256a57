package main

import (
	"context"
	"math/big"
	"time"

	"github.com/step-plugins/step-revoke-plugin/internal/online"
	"github.com/step-plugins/step-revoke-plugin/internal/revocation"
	"github.com/step-plugins/step-revoke-plugin/internal/ui"
)

const (
	watchedBatch = 200             // more revocations than this are watched
	watchedFirst = 20              // how many of them
	firstLook    = 2 * time.Second // how long the CRL may keep the batch waiting
)

// A crlWatch finds out whether the CA builds its CRL with each revocation
// ("generateOnRevoke" in its ca.json), which makes a batch quadratic: the number of
// the CRL has then moved with each. Nothing of the batch depends on it.
type crlWatch struct {
	look    func() (*big.Int, error) // reads the number of the CRL
	before  *big.Int
	revoked int
	moved   chan bool // has room for one
}

// watchCRL looks at the CRL of a CA that is online before a batch. The looks end when
// stop is called.
func (r *report) watchCRL(ctx context.Context, ca authority) (stop func()) {
	there, isOnline := ca.(*online.CA)
	if !isOnline || r.left() <= watchedBatch {
		return func() {}
	}
	first, stopFirst := context.WithTimeout(ctx, firstLook)
	defer stopFirst()
	before, err := there.CRLNumber(first)
	if err != nil {
		ui.Debug("the CRL is not watched: %v", err)
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	r.watch = &crlWatch{
		look:   func() (*big.Int, error) { return there.CRLNumber(ctx) },
		before: before, moved: make(chan bool, 1),
	}
	return stop
}

// ended takes the status of each certificate as it ends. It tells once whether the CA
// builds its CRL with each revocation.
func (w *crlWatch) ended(s revocation.Status) bool {
	if w == nil {
		return false
	}
	if s == revocation.Revoked {
		if w.revoked++; w.revoked == watchedFirst {
			go w.lookAgain()
		}
	}
	select {
	case moved := <-w.moved:
		return moved
	default:
		return false
	}
}

func (w *crlWatch) lookAgain() {
	if after, err := w.look(); err == nil {
		least := new(big.Int).Add(w.before, big.NewInt(watchedFirst))
		w.moved <- after.Cmp(least) >= 0
	}
}

// saySlowing says that each revocation takes longer than the one before it, and what
// to do about that.
func (r *report) saySlowing() {
	r.progress.Slows()
	ui.Warn("the CA builds its CRL with each revocation: each takes longer than the one before it, and the CA's database grows with all these CRLs")
	ui.Hint("it is much faster on the CA's host, where --offline builds one CRL for all; or with \"generateOnRevoke\": false in its ca.json until this is done")
}
