package cli

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"trysail/evidence"
	"trysail/internal/keys"
	"trysail/internal/secret"
	"trysail/internal/tree"
)

// keyOptions say how the release key is opened.
type keyOptions struct {
	passphrase string   // file that holds it
	identities []string // files that open an age file
}

func (o *keyOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.passphrase, "passphrase-file", "", "`FILE` with the passphrase or the PIN of the key on its first line (default: asked for at the terminal)")
	c.Flags().StringArrayVar(&o.identities, "identity", nil, "`FILE` that opens the key's file: an age identity or an SSH private key (repeatable)")
}

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make and show the release key, which signs the evidence",
		Long: "A release key is ECDSA P-256 and lives in a file that is encrypted with age, in an SSH agent or on a\n" +
			"token: FILE.age, agent:SHA256:…, agent:COMMENT or 'pkcs11:token=…;object=…'." + exitHelp,
		Args: cobra.NoArgs,
		RunE: needsCommand,
	}
	var o keyOptions
	var recipients []string
	fresh := &cobra.Command{
		Use: "new FILE.age", Short: "Make a release key in a file that is encrypted to people or with a passphrase", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.keyNew(c.Context(), args[0], recipients, o)
		},
	}
	fresh.Flags().StringArrayVar(&recipients, "recipient", nil, "who can open it: an age recipient or an SSH public `KEY`, or a file of them (repeatable; default: a passphrase)")
	fresh.Flags().StringVar(&o.passphrase, "passphrase-file", "", "`FILE` with the passphrase on its first line (default: asked for at the terminal)")
	show := &cobra.Command{
		Use: "show KEY", Short: "Show the public half: PEM, SSH and fingerprint", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.keyShow(c.Context(), args[0], o) },
	}
	o.flags(show)
	cmd.AddCommand(fresh, show)
	return cmd
}

func (a *app) keyNew(ctx context.Context, file string, recipients []string, o keyOptions) error {
	var to []age.Recipient
	if len(recipients) > 0 {
		var err error
		if recipients, err = recipientsOf(recipients); err != nil {
			return err
		}
		if to, err = secret.Recipients(recipients); err != nil {
			return err
		}
	} else {
		text, err := a.passphrase(ctx, file, o.passphrase)
		if err != nil {
			return err
		}
		if o.passphrase == "" { // at the terminal nobody sees what is typed
			again, err := a.passphrase(ctx, file+", once more", "")
			if err != nil {
				return err
			}
			if again != text {
				return errors.New("the two passphrases differ: no key was made")
			}
		}
		r, err := keys.Passphrase(text)
		if err != nil {
			return err
		}
		to = append(to, r)
	}
	pub, err := keys.Generate(file, to...)
	if err != nil {
		return err
	}
	return a.printKey(file, pub)
}

// recipientsOf reads the files among recipients: one a line, with comments as in age's.
func recipientsOf(list []string) ([]string, error) {
	var all []string
	for _, r := range list {
		data, err := tree.ReadFile(r, maxDocument)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) {
			all = append(all, r)
			continue
		}
		if err != nil {
			return nil, err
		}
		for l := range strings.Lines(string(data)) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
				all = append(all, l)
			}
		}
	}
	return all, nil
}

func (a *app) keyShow(ctx context.Context, ref string, o keyOptions) (err error) {
	k, err := a.openKey(ctx, ref, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return a.printKey(ref, k.Public())
}

// printKey shows the public half, for people to keep where they verify.
func (a *app) printKey(ref string, pub *ecdsa.PublicKey) error {
	pem, err := evidence.PublicPEM(pub)
	if err != nil {
		return err
	}
	line, err := keys.SSHPublic(pub, evidence.ReleasePrincipal)
	if err != nil {
		return err
	}
	print, err := evidence.Fingerprint(pub)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Key         string `json:"key"`
			Fingerprint string `json:"fingerprint"`
			PEM         string `json:"pem"`
			SSH         string `json:"ssh"`
		}{ref, print, string(pem), strings.TrimSpace(line)})
	}
	fmt.Fprintf(a.stderr, "%s\n%s\n", print, strings.TrimSpace(line))
	a.printf("%s", pem)
	return nil
}

// openKey opens the release key.
func (a *app) openKey(ctx context.Context, ref string, o keyOptions) (keys.Key, error) {
	ask := func(ctx context.Context, what string) (string, error) { return a.passphrase(ctx, what, o.passphrase) }
	return keys.Open(ctx, ref, keys.Options{Passphrase: ask, PIN: ask, Identities: o.identities})
}

// passphrase reads one from a file, or asks for it at the terminal.
func (a *app) passphrase(ctx context.Context, of, file string) (string, error) {
	if file != "" {
		f, err := tree.OpenFile(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		line, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	f, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(f) {
		return "", usage("%s wants a passphrase, and there is no terminal to ask at: --passphrase-file FILE", of)
	}
	a.ui.end()
	fmt.Fprintf(a.stderr, "Passphrase of %s: ", of)
	data, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(a.stderr)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return "", err
	}
	return string(data), nil
}
