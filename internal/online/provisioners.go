package online

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/smallstep/certificates/authority/provisioner"
)

// Bounds of the list of provisioners, which are far from what a CA has.
const (
	maxPages   = 500
	maxListed  = 10_000
	maxListing = 1 << 20 // bytes of one provisioner
	maxName    = 1000    // bytes of its name or key ID, which each token and outcome carries
)

var errTooMany = badAnswer("it lists too much")

// Provisioners returns all of the CA's provisioners, which it lists in pages.
func (c *CA) Provisioners(ctx context.Context) (provisioner.List, error) {
	const asked = "asked for its provisioners"
	ctx, cancel := c.patience(ctx)
	defer cancel()
	var all provisioner.List
	var used int64
	query := url.Values{"limit": {"100"}}
	for seen := map[string]bool{}; ; {
		var page struct {
			Provisioners listed
			NextCursor   string
		}
		var size int64
		if err := c.ask(ctx, asked, func(ctx context.Context) error {
			_, err := c.send(ctx, exchange{
				method: http.MethodGet, path: "provisioners", query: query, limit: maxProvisioners, used: used,
				read: func(body io.Reader) (err error) { size, err = readJSON(body, &page); return err },
			})
			return err
		}); err != nil {
			return nil, err
		}
		used += size
		all = append(all, page.Provisioners...)
		switch next := page.NextCursor; {
		case next == "":
			return all, nil
		case seen[next] || len(seen) == maxPages || len(next) > maxName:
			return nil, explain(c.url, asked, badAnswer("its pages have no end"))
		case len(all) > maxListed:
			return nil, explain(c.url, asked, errTooMany)
		default:
			seen[next] = true
			query.Set("cursor", next)
		}
	}
}

// listed decodes one provisioner after the other: as a whole, a list of very
// small ones would take a hundred times its size.
type listed provisioner.List

func (l *listed) UnmarshalJSON(data []byte) error {
	*l = nil
	items := json.NewDecoder(bytes.NewReader(data))
	switch start, err := items.Token(); {
	case err != nil || start == nil: // null is an empty list
		return err
	case start != json.Delim('['):
		return badAnswer("it is no list")
	}
	for n := 1; items.More(); n++ {
		var item json.RawMessage
		if err := items.Decode(&item); err != nil {
			return err
		}
		if n > maxListed || len(item) > maxListing {
			return errTooMany
		}
		var one provisioner.List
		if err := one.UnmarshalJSON(slices.Concat([]byte("["), item, []byte("]"))); err != nil {
			return err
		}
		for _, p := range one { // none, if its type is unknown here
			if jwk, ok := p.(*provisioner.JWK); len(p.GetName()) > maxName || ok && jwk.Key != nil && len(jwk.Key.KeyID) > maxName {
				return badAnswer("a name in it has more than %d bytes", maxName)
			}
			*l = append(*l, p)
		}
	}
	return nil
}
