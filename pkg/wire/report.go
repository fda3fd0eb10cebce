package wire

import (
	"github.com/pratique-sec/pratique/pkg/reason"
	"github.com/pratique-sec/pratique/pkg/report"
	pb "github.com/pratique-sec/pratique/proto/pratique/v1"
)

// TypeReport is the message type of a report.Report.
const TypeReport = "pratique.v1.Report"

var reportCodec = codec[*report.Report, *pb.Report]{(*encoder).report, (*decoder).report}

// EncodeReport writes a report as a pratique.v1.Report.
func EncodeReport(r *report.Report) ([]byte, error) { return reportCodec.encode(r) }

// DecodeReport reads what EncodeReport wrote.
func DecodeReport(b []byte) (*report.Report, error) { return reportCodec.decode(b) }

// ReportJSON writes a report as protobuf JSON on one line, without a newline.
func ReportJSON(r *report.Report) ([]byte, error) { return reportCodec.json(r) }

// ReportFromJSON reads what ReportJSON wrote, here or in a newer version.
func ReportFromJSON(b []byte) (*report.Report, error) { return reportCodec.fromJSON(b) }

var outcomes = newEnum(map[report.Outcome]pb.Outcome{
	report.Clean:    pb.Outcome_OUTCOME_CLEAN,
	report.Findings: pb.Outcome_OUTCOME_FINDINGS,
	report.Partial:  pb.Outcome_OUTCOME_PARTIAL,
	report.Failed:   pb.Outcome_OUTCOME_FAILED,
	report.Skipped:  pb.Outcome_OUTCOME_SKIPPED,
	report.Closed:   pb.Outcome_OUTCOME_CLOSED,
})

// severity says "unknown" for what is not in the schema: it is the domain's own word for that.
func (e *encoder) severity(s report.Severity) pb.Severity {
	switch s {
	case report.Low:
		return pb.Severity_SEVERITY_LOW
	case report.Medium:
		return pb.Severity_SEVERITY_MEDIUM
	case report.High:
		return pb.Severity_SEVERITY_HIGH
	case report.Critical:
		return pb.Severity_SEVERITY_CRITICAL
	default:
		return pb.Severity_SEVERITY_UNKNOWN
	}
}

func (d *decoder) severity(s pb.Severity) report.Severity {
	switch s {
	case pb.Severity_SEVERITY_LOW:
		return report.Low
	case pb.Severity_SEVERITY_MEDIUM:
		return report.Medium
	case pb.Severity_SEVERITY_HIGH:
		return report.High
	case pb.Severity_SEVERITY_CRITICAL:
		return report.Critical
	default:
		return report.Unknown
	}
}

func (e *encoder) report(r *report.Report) *pb.Report {
	if r == nil {
		r = &report.Report{} // refused below, as any report of nothing
	}
	e.identified(r)
	return &pb.Report{
		Image:    the(&e.cursor, "image", r.Image, e.image),
		Outcome:  outcomes.encode(e, "outcome", r.Outcome),
		Reason:   text(r.Reason),
		Detail:   text(r.Detail),
		Os:       e.operatingSystem(r.OS),
		Results:  each(&e.cursor, "results", r.Results, e.result),
		NotRead:  each(&e.cursor, "not_read", r.NotRead, e.layerNotRead),
		Database: e.database(r.Database),
		Engine:   e.engine(r.Engine),
		Created:  stamp(r.Created),
	}
}

func (d *decoder) report(m *pb.Report) *report.Report {
	r := &report.Report{
		Image:    the(&d.cursor, "image", m.GetImage(), d.image),
		Outcome:  outcomes.decode(m.GetOutcome()),
		Reason:   reason.Code(m.GetReason()),
		Detail:   m.GetDetail(),
		OS:       d.operatingSystem(m.GetOs()),
		Results:  each(&d.cursor, "results", m.GetResults(), d.result),
		NotRead:  each(&d.cursor, "not_read", m.GetNotRead(), d.layerNotRead),
		Database: the(&d.cursor, "database", m.GetDatabase(), d.database),
		Engine:   d.engine(m.GetEngine()),
		Created:  d.time("created", m.GetCreated()),
	}
	d.identified(r)
	return r
}

// identified refuses a report that does not say of what it is. An image that failed before its reference
// was resolved has no digest to name: its report is shown to who asked, and never stored.
func (c *cursor) identified(r *report.Report) {
	if r.Outcome != report.Failed || r.Image.Digest != "" {
		c.required("image.reference.digest", string(r.Image.Digest))
		return
	}
	c.enter("image", -1)
	defer c.leave()
	c.located(r.Image.Reference)
}

func (e *encoder) operatingSystem(o report.OS) *pb.OperatingSystem {
	return &pb.OperatingSystem{
		Family:     text(o.Family),
		Name:       text(o.Name),
		EndOfLife:  o.EndOfLife,
		Extended:   o.Extended,
		Repository: text(o.Repository),
	}
}

func (d *decoder) operatingSystem(m *pb.OperatingSystem) report.OS {
	return report.OS{
		Family:     m.GetFamily(),
		Name:       m.GetName(),
		EndOfLife:  m.GetEndOfLife(),
		Extended:   m.GetExtended(),
		Repository: m.GetRepository(),
	}
}

func (e *encoder) layerNotRead(n report.NotRead) *pb.NotRead {
	m := e.notRead(n.NotRead)
	m.DiffId = e.digest("diff_id", n.DiffID)
	return m
}

func (d *decoder) layerNotRead(m *pb.NotRead) report.NotRead {
	return report.NotRead{NotRead: d.notRead(m), DiffID: d.digest("diff_id", m.GetDiffId())}
}

func (e *encoder) result(r report.Result) *pb.Result {
	return &pb.Result{
		Class:           text(r.Class),
		Type:            text(r.Type),
		Target:          text(r.Target),
		Packages:        each(&e.cursor, "packages", r.Packages, e.pkg),
		Vulnerabilities: each(&e.cursor, "vulnerabilities", r.Vulnerabilities, e.vulnerability),
	}
}

func (d *decoder) result(m *pb.Result) report.Result {
	return report.Result{
		Class:           m.GetClass(),
		Type:            m.GetType(),
		Target:          m.GetTarget(),
		Packages:        each(&d.cursor, "packages", m.GetPackages(), d.pkg),
		Vulnerabilities: each(&d.cursor, "vulnerabilities", m.GetVulnerabilities(), d.vulnerability),
	}
}

func (e *encoder) pkg(p report.Package) *pb.Package {
	return &pb.Package{
		Id:            text(p.ID),
		Name:          text(p.Name),
		Version:       text(p.Version),
		Source:        text(p.Source),
		SourceVersion: text(p.SourceVersion),
		Arch:          text(p.Arch),
		Path:          text(p.Path),
		Purl:          text(p.PURL),
		Licenses:      texts(p.Licenses),
		Layer:         e.digest("layer", p.Layer),
		CreatedBy:     text(p.CreatedBy),
		Indirect:      p.Indirect,
		Uid:           text(p.UID),
		Maintainer:    text(p.Maintainer),
		Modularity:    text(p.Modularity),
		Origin:        text(p.Origin),
		Relationship:  text(p.Relationship),
		DependsOn:     texts(p.DependsOn),
		AnalyzedBy:    text(p.AnalyzedBy),
	}
}

func (d *decoder) pkg(m *pb.Package) report.Package {
	return report.Package{
		ID:            m.GetId(),
		Name:          m.GetName(),
		Version:       m.GetVersion(),
		Source:        m.GetSource(),
		SourceVersion: m.GetSourceVersion(),
		Arch:          m.GetArch(),
		Path:          m.GetPath(),
		PURL:          m.GetPurl(),
		Licenses:      m.GetLicenses(),
		Layer:         d.digest("layer", m.GetLayer()),
		CreatedBy:     m.GetCreatedBy(),
		Indirect:      m.GetIndirect(),
		UID:           m.GetUid(),
		Maintainer:    m.GetMaintainer(),
		Modularity:    m.GetModularity(),
		Origin:        m.GetOrigin(),
		Relationship:  m.GetRelationship(),
		DependsOn:     m.GetDependsOn(),
		AnalyzedBy:    m.GetAnalyzedBy(),
	}
}

func (e *encoder) vulnerability(v report.Vulnerability) *pb.Vulnerability {
	return &pb.Vulnerability{
		Id:               text(v.ID),
		Aliases:          texts(v.Aliases),
		VendorIds:        texts(v.VendorIDs),
		PackageId:        text(v.PkgID),
		Package:          text(v.Package),
		Version:          text(v.Version),
		Path:             text(v.Path),
		Purl:             text(v.PURL),
		Fixed:            text(v.Fixed),
		Status:           text(v.Status),
		Severity:         e.severity(v.Severity),
		SeveritySource:   text(v.SeveritySource),
		Title:            text(v.Title),
		Description:      text(v.Description),
		Url:              text(v.URL),
		References:       texts(v.References),
		Cwes:             texts(v.CWEs),
		Cvss:             entries(v.CVSS, e.cvss),
		Published:        stamp(v.Published),
		Modified:         stamp(v.Modified),
		Source:           text(v.Source),
		Layer:            e.digest("layer", v.Layer),
		CreatedBy:        text(v.CreatedBy),
		SourceBase:       text(v.SourceBase),
		SourceName:       text(v.SourceName),
		SourceUrl:        text(v.SourceURL),
		VendorSeverities: entries(v.VendorSeverities, e.severity),
		PackageUid:       text(v.UID),
	}
}

func (d *decoder) vulnerability(m *pb.Vulnerability) report.Vulnerability {
	return report.Vulnerability{
		ID:               m.GetId(),
		Aliases:          m.GetAliases(),
		VendorIDs:        m.GetVendorIds(),
		PkgID:            m.GetPackageId(),
		Package:          m.GetPackage(),
		Version:          m.GetVersion(),
		Path:             m.GetPath(),
		PURL:             m.GetPurl(),
		Fixed:            m.GetFixed(),
		Status:           m.GetStatus(),
		Severity:         d.severity(m.GetSeverity()),
		SeveritySource:   m.GetSeveritySource(),
		Title:            m.GetTitle(),
		Description:      m.GetDescription(),
		URL:              m.GetUrl(),
		References:       m.GetReferences(),
		CWEs:             m.GetCwes(),
		CVSS:             entries(m.GetCvss(), d.cvss),
		Published:        d.time("published", m.GetPublished()),
		Modified:         d.time("modified", m.GetModified()),
		Source:           m.GetSource(),
		Layer:            d.digest("layer", m.GetLayer()),
		CreatedBy:        m.GetCreatedBy(),
		SourceBase:       m.GetSourceBase(),
		SourceName:       m.GetSourceName(),
		SourceURL:        m.GetSourceUrl(),
		VendorSeverities: entries(m.GetVendorSeverities(), d.severity),
		UID:              m.GetPackageUid(),
	}
}

func (e *encoder) cvss(c report.CVSS) *pb.CVSS {
	return &pb.CVSS{
		V2Vector:  text(c.V2Vector),
		V3Vector:  text(c.V3Vector),
		V40Vector: text(c.V40Vector),
		V2Score:   c.V2Score,
		V3Score:   c.V3Score,
		V40Score:  c.V40Score,
	}
}

func (d *decoder) cvss(m *pb.CVSS) report.CVSS {
	return report.CVSS{
		V2Vector:  m.GetV2Vector(),
		V3Vector:  m.GetV3Vector(),
		V40Vector: m.GetV40Vector(),
		V2Score:   m.GetV2Score(),
		V3Score:   m.GetV3Score(),
		V40Score:  m.GetV40Score(),
	}
}
