package cli

import (
	"fmt"
	"strings"

	"trysail/internal/api"
	"trysail/release"
)

// mostHints is how many commands are told for one thing that is asked.
const mostHints = 20

// hints are the commands by which people do what they are asked: complete, but for words
// in capitals, which are theirs.
func hints(version string, k api.Ask, g *api.Gold) []string {
	command := func(words string) string { return "trysail release " + words }
	switch k.Type {
	case "sign", "retry":
		return []string{command(k.Type + " " + version + " " + k.Item)}
	case "withdraw":
		return []string{command("withdraw " + version + " " + k.Item + " --reason WHY")}
	case "waive":
		var list []string
		for i, test := range k.Tests {
			if i == mostHints {
				return append(list, fmt.Sprintf("and so on: %d more", len(k.Tests)-i))
			}
			list = append(list, command("waive "+version+" "+k.Item+" "+shellWord(test)+" --reason WHY"))
		}
		return list
	case "except":
		words := "except " + version
		if g != nil {
			for _, d := range g.Differences {
				words += " --difference " + shellWord(d)
			}
		}
		return []string{command(words + " --reason WHY")}
	case "amend":
		change := "--source"
		if k.Change == "runbook" {
			change = "--runbook FILE"
		}
		return []string{command("amend " + version + " " + change + " --reason WHY")}
	case "refuse":
		return []string{command("agree " + version + " --no --reason WHY")}
	case "abort":
		return []string{command("abort " + version + " --reason WHY")}
	}
	return []string{command(k.Type + " " + version)}
}

// shellWord writes text as one word of a shell, which reads it as it was: what a terminal
// would act on is written as an escape ($'…' of bash, zsh and POSIX of 2024).
func shellWord(s string) string {
	if s != release.StripControl(s) {
		var b strings.Builder
		for _, r := range s {
			switch text := string(r); {
			case r == '\\' || r == '\'':
				b.WriteString(`\` + text)
			case text == release.StripControl(text):
				b.WriteString(text)
			default:
				for _, c := range []byte(text) {
					fmt.Fprintf(&b, `\x%02x`, c)
				}
			}
		}
		return "$'" + b.String() + "'"
	}
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./+:=@%", r)
	}
	if s != "" && !strings.HasPrefix(s, "-") && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
