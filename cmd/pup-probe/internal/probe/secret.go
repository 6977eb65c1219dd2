package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"pup/cmd/internal/ndjson"
	"pup/cmd/internal/schema"
	"pup/cmd/internal/wire"
)

// secrets resolves references to secrets, and remembers what it gave out, so
// that it can be kept out of the result.
type secrets struct {
	dir   string
	given []string
}

// maxSecret bounds a secret, in bytes.
const maxSecret = 64 << 10

// resolve replaces the references in the credential-like fields of the struct
// that opt points to.
func (s *secrets) resolve(path string, options func() *schema.Field, opt any) error {
	return s.walk(path, reflect.ValueOf(opt).Elem())
}

func (s *secrets) walk(path string, v reflect.Value) error {
	t := v.Type()
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		fv := v.Field(i)
		switch {
		case fv.Kind() == reflect.Struct && sf.Anonymous: // exported or not, as for JSON
			if err := s.walk(path, fv); err != nil {
				return err
			}
		case !sf.IsExported():
		case fv.Kind() == reflect.Struct:
			if err := s.walk(path+"."+name, fv); err != nil {
				return err
			}
		case sf.Tag.Get("secret") == "true" && fv.Kind() == reflect.String && fv.Len() > 0:
			text, err := s.text(fv.String())
			if err != nil {
				return Failf(wire.NoSecret, "%s.%s: %w", path, name, err)
			}
			fv.SetString(text)
		case sf.Tag.Get("secret") == "true" && fv.Kind() == reflect.Map:
			for it := fv.MapRange(); it.Next(); {
				text, err := s.text(it.Value().String())
				if err != nil {
					return Failf(wire.NoSecret, "%s.%s.%.80s: %w", path, name, it.Key(), err)
				}
				fv.SetMapIndex(it.Key(), reflect.ValueOf(text))
			}
		case fv.Kind() == reflect.Slice && sf.Type.Elem().Kind() == reflect.Struct:
			for i := range fv.Len() {
				if err := s.walk(fmt.Sprintf("%s.%s[%d]", path, name, i), fv.Index(i)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// text gives what a reference stands for. A line end at the end of a file does
// not belong to the secret.
func (s *secrets) text(ref string) (string, error) {
	kind, name, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(ref, "${"), "}"), ":")
	var text string
	switch {
	case !schema.IsReference(ref):
		return "", fmt.Errorf("is no reference such as ${secret:NAME}")
	case kind == "env":
		var ok bool
		if text, ok = os.LookupEnv(name); !ok {
			return "", fmt.Errorf("the environment has no %s", name)
		}
	case s.dir == "":
		return "", fmt.Errorf("${secret:%s} needs --secrets DIR (or $CREDENTIALS_DIRECTORY)", name)
	default:
		var err error
		if text, err = readSecret(filepath.Join(s.dir, name)); err != nil {
			return "", err
		}
	}
	if text != "" {
		s.given = append(s.given, text)
		if quoted := ndjson.AppendString(nil, text); len(quoted) > len(text)+2 { // as it would look in JSON
			s.given = append(s.given, string(quoted[1:len(quoted)-1]))
		}
	}
	return text, nil
}

func readSecret(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !fi.Mode().IsRegular():
		return "", fmt.Errorf("%s is no regular file", file)
	case fi.Size() > maxSecret:
		return "", fmt.Errorf("%s is larger than %d bytes", file, maxSecret)
	}
	b := make([]byte, fi.Size())
	n, err := f.Read(b)
	if err != nil && n == 0 && fi.Size() > 0 {
		return "", err
	}
	return strings.TrimRight(string(b[:n]), "\r\n"), nil
}

// hide takes the secrets that were given out from text.
func (s *secrets) hide(text string) string {
	for _, secret := range s.given {
		if len(secret) > 2 { // shorter ones would tear words apart, and tell by it
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}
