package manager

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
)

// ParseClaim reads the code that a gateway shows. A typing error is found here, and nothing is sent.
func ParseClaim(typed string) (identity.OwnerCode, error) {
	code, err := identity.ParseOwnerCode(typed)
	if err != nil {
		return code, usage("code: %w: compare it with what the gateway shows", err)
	}
	return code, nil
}

// Waiting shows the gateway that waits with a code. Who asks has the code, and shows the server its hash; the server's answer
// helps to recognize the gateway, and decides nothing. Reason not-found: none waits, as far as the server knows.
func (a *Account) Waiting(ctx context.Context, code identity.OwnerCode) (c api.Claim, err error) {
	hash := identity.AuthHash(code.Auth())
	query := url.Values{api.ParamHash: {hex.EncodeToString(hash[:])}}
	err = a.do(ctx, "look for the gateway", http.MethodGet, "/claims/"+url.PathEscape(code.LookupID())+"?"+query.Encode(), nil, &c)
	if transport.ReasonOf(err) == api.NotFound {
		err = fail(api.NotFound, "look for the gateway", errors.New("none waits with this code: is it on, and online? One that has waited for "+
			"more than a day asks every hour: switch it off and on"))
	}
	return c, err
}

// ClaimDevice states a device and gives it the code that its gateway shows. Given again, because the answer was lost, it finds
// what was done. Reason code-taken: somebody else has claimed it; name-taken: as in AddDevice.
func (a *Account) ClaimDevice(ctx context.Context, code identity.OwnerCode, name, folder string) (d NewDevice, err error) {
	op := "claim " + name
	if err := checkPlace(name, folder); err != nil {
		return d, err
	}
	pool, err := a.readAndConfirm(ctx)
	if err != nil {
		return d, err
	}
	if was, end, ok := a.claimedBefore(pool, code); ok {
		if was.Name != name || was.Folder != folder {
			return d, fail(transport.CodeTaken, op, fmt.Errorf("the code is that of the device %s already", was.Name))
		}
		return NewDevice{UID: was.UID, Name: name, Folder: folder, Expires: end}, nil
	}
	p, err := a.pen(false)
	if err != nil {
		return d, err
	}
	d, err = a.addDevice(ctx, op, code, p, name, folder)
	d.Code = "" // it is the gateway's
	if transport.ReasonOf(err) == transport.CodeTaken {
		err = fail(transport.CodeTaken, op, errors.New("somebody else has claimed this gateway"))
	}
	return d, err
}

// claimedBefore finds the device that was given a code, by the key of its invite: no server has a word in that.
func (a *Account) claimedBefore(pool statements, code identity.OwnerCode) (d identity.DeviceStatement, end time.Time, ok bool) {
	key, err := identity.NewPublicKey(code.InviteKey(0).Public())
	if err != nil {
		return d, end, false
	}
	for _, s := range pool {
		invite, is := s.Statement.(identity.InviteStatement)
		if !is || invite.Key != key || invite.UID.IsZero() || !a.genuine(pool, s) {
			continue
		}
		if d, err = a.device(pool, invite.UID.String()); err == nil {
			return d, time.Unix(invite.Exp, 0).UTC(), true
		}
	}
	return d, end, false
}
