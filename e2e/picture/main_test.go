package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestDraw(t *testing.T) {
	t.Parallel()
	long := "  " + strings.Repeat("word ", 20)
	for _, test := range []struct{ name, screen, want string }{
		{"plain", "a <b> & \"c\"\n\n\n", `<text x="22" y="60" textLength="93.5">a &lt;b&gt; &amp; &#34;c&#34;</text>`},
		{"a style goes on", "\x1b[1;36m$\x1b[39m ls\nx\x1b[0m y", `<text x="22" y="60" fill="#39c5cf" font-weight="bold">$</text>
<text x="39" y="60" textLength="17" font-weight="bold">ls</text>
<text x="22" y="80" font-weight="bold">x</text>
<text x="39" y="80">y</text>`},
		{"spaces", "a   b", `<text x="22" y="60">a</text>
<text x="56" y="60">b</text>`},
		{"long", long, `<text x="39" y="60" textLength="714">` + strings.TrimSpace(strings.Repeat("word ", 17)) + `</text>
<text x="56" y="80" textLength="119">word word word</text>`},
	} {
		svg, err := draw(test.screen, "title", "description")
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := strings.Join(regexp.MustCompile(`(?m)^<text .*$`).FindAllString(string(svg), -1), "\n")
		if got != test.want {
			t.Errorf("%s:\n%s\nnot\n%s", test.name, got, test.want)
		}
	}
	for _, screen := range []string{"\x1b[45mx", "\x1b[2K", "\x1b]0;title\x07m", "\x1b[1"} {
		if svg, err := draw(screen, "title", "description"); err == nil {
			t.Errorf("%q becomes %s", screen, svg)
		}
	}
}
