package pkcs11

import (
	"reflect"
	"strings"
	"testing"

	"midplane/internal/digsig/pkcs11/proto"
)

func TestParseURI(t *testing.T) {
	slot := uint64(18446744073709551615)
	for _, c := range []struct {
		in   string
		want URI
		err  string
	}{
		{"pkcs11:", URI{}, ""},
		{"pkcs11:token=My%20token%3b;object=sign;id=%00%ff%61;type=private", URI{Match: proto.Match{Token: "My token;", Object: "sign", ID: []byte{0, 255, 'a'}}}, ""},
		{"pkcs11:manufacturer=m;model=d;serial=0001;slot-id=18446744073709551615", URI{Match: proto.Match{Manufacturer: "m", Model: "d", Serial: "0001", Slot: &slot}}, ""},
		{"pkcs11:?pin-source=file:/etc/pin&module-path=/usr/lib/x.so", URI{PINSource: "file:/etc/pin", ModulePath: "/usr/lib/x.so"}, ""},
		{"pkcs11:object=a?pin-value=12%2034", URI{Match: proto.Match{Object: "a"}, pin: "12 34"}, ""},
		{"pkcs12:", URI{}, "begins with"},
		{"pkcs11:" + strings.Repeat("a", maxURI), URI{}, "at most"},
		{"pkcs11:token", URI{}, "not attribute=value"},
		{"pkcs11:token=a;", URI{}, "not attribute=value"},
		{"pkcs11:=a", URI{}, "not attribute=value"},
		{"pkcs11:token=", URI{}, "is empty"},
		{"pkcs11:token=a;token=b", URI{}, "comes twice"},
		{"pkcs11:token=%zz", URI{}, "attribute token"},
		{"pkcs11:type=public", URI{}, "private key"},
		{"pkcs11:slot-id=-1", URI{}, "want a number"},
		{"pkcs11:library-version=1", URI{}, "is not known"},
		{"pkcs11:?module-name=x", URI{}, "is not known"},
		{"pkcs11:?pin-value=1&pin-source=/x", URI{}, "both"},
	} {
		got, err := ParseURI(c.in)
		if !reflect.DeepEqual(got, c.want) || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v, %v: want %+v, %q", c.in, got, err, c.want, c.err)
		}
	}
	u, err := ParseURI("pkcs11:object=a?pin-value=4711")
	if err != nil || strings.Contains(u.String(), "4711") {
		t.Errorf("%s tells the PIN (%v)", u, err)
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=a;object=b%20;id=%01?pin-source=file:/x&module-path=/y")
	f.Add("pkcs11:slot-id=3;serial=9;model=c;manufacturer=d?pin-value=1")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		u.pin = ""
		again, err := ParseURI(u.String())
		if len(u.String()) <= maxURI && (err != nil || !reflect.DeepEqual(again, u)) {
			t.Errorf("%q -> %s -> %+v, %v", s, u, again, err)
		}
	})
}
