package demodata

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"strings"
)

// The frame that the Go linker puts around the module information, and what begins the section that
// holds it (debug/buildinfo looks for both).
const (
	infoMagic = "\xff Go buildinf:"
	infoStart = "0w\xaf\f\x92t\b\x02A\xe1\xc1\a\xe6\xd6\x18\xe6"
	infoEnd   = "\xf92C1\x86\x18 r\x00\x82B\x10A\x16\xd8\xf2"
)

// goBinary makes the smallest ELF executable whose build information debug/buildinfo reads. info is what
// "go version -m" prints, without the file's name: the Go version on the first line, then the module
// information, indented. The file holds no code.
func goBinary(machine elf.Machine, info string) ([]byte, error) {
	version, modules, ok := strings.Cut(info, "\n")
	if !ok || !strings.HasPrefix(version, "go") {
		return nil, fmt.Errorf("demodata: build information does not begin with a Go version: %.20q", info)
	}
	modules = infoStart + strings.ReplaceAll(modules, "\n\t", "\n")[1:] + infoEnd

	var section bytes.Buffer
	section.WriteString(infoMagic)
	section.WriteByte(8) // pointer size, of no meaning here
	section.WriteByte(2) // the strings follow inline
	section.Write(make([]byte, 32-section.Len()))
	for _, s := range []string{version, modules} {
		section.Write(binary.AppendUvarint(nil, uint64(len(s))))
		section.WriteString(s)
	}

	// ELF header, one program header, the section, section names, three section headers.
	const headerSize, progSize, sectionSize, base = 64, 56, 64, 0x400000
	const names = "\x00.go.buildinfo\x00.shstrtab\x00"
	infoAt := uint64(headerSize+progSize+15) &^ 15
	namesAt := infoAt + uint64(section.Len())
	tableAt := (namesAt + uint64(len(names)) + 7) &^ 7

	var out bytes.Buffer
	put := func(at uint64, v any) error {
		out.Write(make([]byte, at-uint64(out.Len())))
		return binary.Write(&out, binary.LittleEndian, v)
	}
	parts := []struct {
		at uint64
		v  any
	}{
		{0, elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
			Phoff: headerSize, Shoff: tableAt, Ehsize: headerSize,
			Phentsize: progSize, Phnum: 1, Shentsize: sectionSize, Shnum: 3, Shstrndx: 2,
		}},
		{headerSize, elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Vaddr: base, Paddr: base,
			Filesz: namesAt, Memsz: namesAt, Align: 0x1000,
		}},
		{infoAt, section.Bytes()},
		{namesAt, []byte(names)},
		{tableAt, []elf.Section64{
			{},
			{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addr: base + infoAt, Off: infoAt, Size: uint64(section.Len()), Addralign: 16},
			{Name: 15, Type: uint32(elf.SHT_STRTAB), Off: namesAt, Size: uint64(len(names)), Addralign: 1},
		}},
	}
	for _, p := range parts {
		if err := put(p.at, p.v); err != nil {
			return nil, fmt.Errorf("demodata: elf: %w", err)
		}
	}
	return out.Bytes(), nil
}
