package fate

import "slices"

// order of the stages.
var order = []Stage{Accepted, Planning, Waiting, Matching, Decided}

// SetImage replaces what is said about an image, or adds it, and moves the fate to the earliest stage
// of its images.
func (f *Fate) SetImage(img Image) {
	if i := f.find(img); i >= 0 {
		f.Images[i] = img
	} else {
		f.Images = append(f.Images, img)
	}
	first := len(order)
	for _, i := range f.Images {
		first = min(first, slices.Index(order, i.Stage))
	}
	if first >= 0 && first < len(order) {
		f.Stage = order[first]
	}
}

// Lists tells whether the fate is about an image: one that lists others only has gone on without it.
func (f *Fate) Lists(img Image) bool { return f.find(img) >= 0 }

func (f *Fate) find(img Image) int {
	return slices.IndexFunc(f.Images, func(o Image) bool { return o.Digest == img.Digest && o.Platform == img.Platform })
}
