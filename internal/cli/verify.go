package cli

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"trysail/evidence"
	"trysail/internal/tree"
	"trysail/internal/witness"
	"trysail/release"
)

// verifyOptions name what whoever verifies has from elsewhere.
type verifyOptions struct {
	source           string
	key, log         string
	signers, revoked string
	checkpoints      []string
	stampRoots       string
}

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify BUNDLE",
		Short: "Verify the evidence of a release, alone and offline",
		Long: "Verify reads the bundle that trysail release bundle made, and nothing else: every file against the\n" +
			"signed checksums, the ledger against its checkpoint and its rules, each sign-off against the person's\n" +
			"key at its time and the bytes that it signs, provenance against the ledger. Give the keys from another\n" +
			"source than the bundle: its own keys prove only that its parts belong together." + exitHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], o) },
	}
	o.flags(c.Flags())
	c.Flags().StringVar(&o.source, "source", "", "compare runbook, signers and blueprints with the revision that they are of, in the working copy `DIR`")
	return c
}

func (o *verifyOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.key, "release-key", "", "the release key, PEM in `FILE`")
	f.StringVar(&o.log, "ledger-key", "", "the ledger's `KEY`, as trysail release checkpoint --key prints it, or a file that holds it")
	f.StringVar(&o.signers, "signers", "", "the allowed_signers `FILE` to trust, instead of those of the release")
	f.StringVar(&o.revoked, "revoked", "", "`FILE` of public keys that are no longer trusted")
	f.StringArrayVar(&o.checkpoints, "checkpoint", nil, "`FILE` with checkpoints from version control (repeatable)")
	f.StringVar(&o.stampRoots, "stamp-roots", "", "`FILE` with the certificates, PEM, of the authorities whose time stamps are trusted")
}

func (a *app) verify(ctx context.Context, dir string, o verifyOptions) error {
	t, err := o.trust()
	if err != nil {
		return err
	}
	info, err := tree.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return usage("%s is no directory: unpack the bundle first", dir)
	}
	root, err := tree.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	r := evidence.Verify(root.FS(), t)
	if err := o.stamped(root.FS(), r); err != nil {
		return err
	}
	if r.Verified {
		if err := a.compareSource(ctx, o.source, r); err != nil {
			return err
		}
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else {
		a.printVerified(r)
	}
	if !r.Verified {
		return answerNo{}
	}
	return nil
}

func (o verifyOptions) trust() (t evidence.Trust, err error) {
	read := func(file string, into *[]byte) {
		if file != "" && err == nil {
			*into, err = tree.ReadFile(file, maxDocument)
			if err == nil && *into == nil {
				*into = []byte{}
			}
		}
	}
	var pem []byte
	read(o.key, &pem)
	read(o.signers, &t.Signers)
	read(o.revoked, &t.Revoked)
	for _, f := range o.checkpoints {
		var data []byte
		read(f, &data)
		if err != nil {
			return t, err
		}
		notes, nerr := evidence.SplitNotes(data)
		if nerr != nil {
			return t, fmt.Errorf("%s: %w", f, nerr)
		}
		t.Checkpoints = append(t.Checkpoints, notes...)
	}
	if err != nil {
		return t, err
	}
	if pem != nil {
		var k *ecdsa.PublicKey
		if k, err = evidence.ParsePublic(pem); err != nil {
			return t, fmt.Errorf("%s: %w", o.key, err)
		}
		t.Key = k
	}
	t.LogKey = o.log
	if data, rerr := tree.ReadFile(o.log, maxDocument); rerr == nil {
		t.LogKey = strings.TrimSpace(string(data))
	} else if o.log != "" && !errors.Is(rerr, fs.ErrNotExist) {
		return t, rerr
	}
	return t, nil
}

// stamped looks when the ledger's checkpoint was time-stamped, and those that were kept
// elsewhere.
func (o verifyOptions) stamped(bundle fs.FS, r *evidence.Report) error {
	if !r.Verified {
		return nil // nothing of it is read that may be anything
	}
	var roots *x509.CertPool
	if o.stampRoots != "" {
		pem, err := tree.ReadFile(o.stampRoots, maxDocument)
		if err != nil {
			return err
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
			return usage("%s holds no certificate", o.stampRoots)
		}
	}
	at, err := stampedAt(func(name string) ([]byte, error) { return fs.ReadFile(bundle, name) }, evidence.CheckpointFile, roots, r, false)
	if err != nil {
		return err
	}
	r.Stamped = at
	for _, f := range o.checkpoints {
		at, err := stampedAt(func(name string) ([]byte, error) { return tree.ReadFile(name, maxDocument) }, f, roots, r, true)
		if err != nil {
			return err
		}
		if at != "" {
			r.KeptStamped = append(r.KeptStamped, evidence.Stamped{File: f, At: at})
		}
	}
	if roots != nil && r.Stamped == "" && len(r.KeptStamped) == 0 && r.Verified {
		r.Refuse(evidence.StampFile, "is not there")
	}
	return nil
}

// stampedAt says when a file was stamped, if a stamp is beside it that holds. One of a
// file that grows may be of what it was before.
func stampedAt(read func(string) ([]byte, error), file string, roots *x509.CertPool, r *evidence.Report, grows bool) (string, error) {
	token, err := read(file + witness.StampEnd)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case roots == nil:
		r.Attention = append(r.Attention, file+" is time-stamped: --stamp-roots FILE says when")
		return "", nil
	}
	data, err := read(file)
	if err != nil {
		return "", err
	}
	if grows && !witness.Stamps(token, data) {
		r.Attention = append(r.Attention, file+" was changed after it was time-stamped, as it is when a checkpoint is added: its stamp says nothing of how it is")
		return "", nil
	}
	at, err := witness.VerifyStamp(token, data, roots)
	if err != nil {
		r.Refuse(file+witness.StampEnd, err.Error())
		return "", nil
	}
	return at.UTC().Format(time.RFC3339), nil
}

func (a *app) printVerified(r *evidence.Report) {
	if !r.Verified {
		a.printf("It does not verify.\n")
		for _, p := range r.Problems {
			a.printf("  ✗ %s\n", release.StripControl(p.String()))
		}
	} else {
		a.printf("Release %s verifies: %d files, %d events.\n", r.Version, r.Files, r.Events)
		for _, g := range r.Gold {
			a.printf("  gold  sha256:%s  %s\n", g.Digest["sha256"], release.StripControl(g.Name))
		}
		signedBy := func(key string) string { return cmp.Or(key, "a word, not a signature") }
		for _, s := range r.SignOffs {
			a.printf("  %s  %s says %s to %s (%s)\n", s.At, release.StripControl(s.Person), s.Decision, release.StripControl(s.Item), signedBy(s.Key))
		}
		for _, d := range r.Decisions {
			a.printf("  %s  %s (%s)\n", d.At, release.StripControl(d.What), signedBy(d.Key))
		}
	}
	if r.Verified {
		for _, d := range r.Drills {
			a.printf("  %s  drill %s: %s\n", d.Began, release.StripControl(d.Run), d.Verdict)
		}
	}
	if r.Stamped != "" {
		a.printf("  The ledger stood so on %s, says a time stamping authority.\n", r.Stamped)
	}
	for _, x := range r.KeptStamped {
		a.printf("  %s stood so on %s, says a time stamping authority.\n", release.StripControl(x.File), x.At)
	}
	if r.Checkpoints > 0 {
		a.printf("  It agrees with %d checkpoint(s) that were kept elsewhere.\n", r.Checkpoints)
	}
	for _, t := range r.Attention {
		a.printf("  ! %s\n", release.StripControl(t))
	}
	if len(r.FromBundle) > 0 {
		a.printf("The %s came with the bundle: compare with what you have from elsewhere\n  release key  %s\n  ledger key   %s\n", strings.Join(r.FromBundle, " and the "), r.Key, r.LogKey)
	}
}
