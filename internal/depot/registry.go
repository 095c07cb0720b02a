package depot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// RegistryError says why a registry, or what should lead to it, does not do what was
// asked, and what a person can do.
type RegistryError struct {
	What   string
	Remedy string
	Err    error // what the registry or the library said; nil if it adds nothing
}

func (e *RegistryError) Error() string {
	if e.Err == nil {
		return e.What
	}
	return e.What + ": " + e.Err.Error()
}

func (e *RegistryError) Unwrap() error { return e.Err }

// Hint says what to do next.
func (e *RegistryError) Hint() string { return e.Remedy }

// parseTarget reads REGISTRY/REPOSITORY[:TAG]. The registry is never left out: other tools
// then take a public one, where a team's originals must not go by accident.
func parseTarget(target string, o TransferOptions) (name.Reference, error) {
	refuse := func(what, remedy string) (name.Reference, error) {
		return nil, &RegistryError{What: fmt.Sprintf("%q is no REGISTRY/REPOSITORY:TAG: %s", target, what), Remedy: remedy}
	}
	if scheme, rest, ok := strings.Cut(target, "://"); ok {
		return refuse("it begins with "+scheme+"://", "write "+rest+"; --insecure speaks plain HTTP")
	}
	host, path, ok := strings.Cut(target, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return refuse("it names no registry", "write the host first, such as registry.example.com/"+target)
	}
	if lower := strings.ToLower(path); lower != path {
		if repository, tag, _ := strings.Cut(path, ":"); strings.ToLower(repository) != repository {
			return refuse("a repository has small letters only", "write "+host+"/"+strings.TrimSuffix(strings.ToLower(repository)+":"+tag, ":"))
		}
	}
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = host
	}
	var opts []name.Option
	ip := net.ParseIP(strings.Trim(h, "[]"))
	if o.Insecure || h == "localhost" || (ip != nil && ip.IsLoopback()) {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(target, opts...)
	if err != nil {
		return refuse("a repository may hold a-z 0-9 . _ - and /, a tag also A-Z", "write it like registry.example.com/build/app:2026-11")
	}
	return ref, nil
}

// credentials are those of the Docker or Podman configuration. What is wrong with them is
// said with the file that a person must mend.
type credentials struct{}

func (credentials) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return credentials{}.ResolveContext(context.Background(), r)
}

var helperRE = regexp.MustCompile(`"(docker-credential-[^"]+)": executable file not found`)

func (credentials) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	a, err := authn.Resolve(ctx, authn.DefaultKeychain, r)
	if err == nil {
		return a, nil
	}
	file := cmp.Or(os.Getenv("DOCKER_CONFIG"), "~/.docker") + "/config.json"
	if m := helperRE.FindStringSubmatch(err.Error()); m != nil {
		return nil, &RegistryError{
			What:   fmt.Sprintf("the credentials of %s cannot be read: %s names the program %s, and it is not installed", r.RegistryStr(), file, m[1]),
			Remedy: "install " + m[1] + ", or remove credsStore and credHelpers from " + file + " and log in again (docker login)",
		}
	}
	return nil, &RegistryError{
		What:   fmt.Sprintf("the credentials of %s cannot be read from %s", r.RegistryStr(), file),
		Remedy: "mend or remove that file and log in again (docker login)", Err: err,
	}
}

// explain says what a registry's answer means; other errors stay as they are.
func explain(registry string, err error) error {
	var e *transport.Error
	if !errors.As(err, &e) {
		return err
	}
	has := func(code transport.ErrorCode) bool {
		for _, d := range e.Errors {
			if d.Code == code {
				return true
			}
		}
		return false
	}
	writes := e.Request != nil && e.Request.Method != http.MethodGet && e.Request.Method != http.MethodHead
	switch {
	case e.StatusCode == http.StatusRequestEntityTooLarge:
		return &RegistryError{What: registry + ", or a proxy before it, takes no upload of this size (413)", Remedy: "raise its limit for the size of a request (nginx: client_max_body_size 0), then push again: it goes on where it stopped"}
	case writes && (e.StatusCode == http.StatusMethodNotAllowed || has(transport.UnsupportedErrorCode)):
		return &RegistryError{What: fmt.Sprintf("%s takes no uploads: it is read-only (%d)", registry, e.StatusCode), Remedy: "push to a registry that takes uploads, or end its read-only mode"}
	case e.StatusCode == http.StatusUnauthorized || has(transport.UnauthorizedErrorCode):
		return &RegistryError{What: fmt.Sprintf("%s does not accept the credentials (%d)", registry, e.StatusCode), Remedy: "log in: docker login " + registry}
	case e.StatusCode == http.StatusForbidden || has(transport.DeniedErrorCode):
		return &RegistryError{What: fmt.Sprintf("%s does not permit this (%d)", registry, e.StatusCode), Remedy: "ask its administrator for permission, or log in as another user: docker login " + registry, Err: err}
	case e.StatusCode == http.StatusTooManyRequests || has(transport.TooManyRequestsErrorCode):
		return &RegistryError{What: registry + " limits the rate of requests (429), also after some seconds", Remedy: "run the same command again later: it goes on where it stopped"}
	}
	return err
}
