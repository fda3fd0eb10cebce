package fate_test

import (
	"testing"

	"github.com/pratique-sec/pratique/pkg/fate"
	"github.com/pratique-sec/pratique/pkg/image"
	"github.com/pratique-sec/pratique/pkg/report"
)

func TestStageIsTheEarliestImages(t *testing.T) {
	amd := fate.Image{Digest: "sha256:a", Platform: image.Platform{OS: "linux", Architecture: "amd64"}, Stage: fate.Waiting}
	arm := fate.Image{Digest: "sha256:b", Platform: image.Platform{OS: "linux", Architecture: "arm64"}, Stage: fate.Matching}
	var f fate.Fate
	if f.Lists(amd) {
		t.Error("an empty fate lists an image")
	}
	for _, step := range []struct {
		img  fate.Image
		to   fate.Stage
		want fate.Stage
	}{
		{amd, fate.Waiting, fate.Waiting}, {arm, fate.Matching, fate.Waiting},
		{amd, fate.Decided, fate.Matching}, {arm, fate.Decided, fate.Decided}, {arm, fate.Planning, fate.Planning},
	} {
		step.img.Stage, step.img.Outcome = step.to, report.Clean
		f.SetImage(step.img)
		if f.Stage != step.want || !f.Lists(step.img) {
			t.Errorf("%s at %s: the fate is at %s, want %s", step.img.Digest, step.to, f.Stage, step.want)
		}
	}
	if len(f.Images) != 2 {
		t.Errorf("%d images, want 2", len(f.Images))
	}
}
