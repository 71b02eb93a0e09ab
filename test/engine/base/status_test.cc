// Goal: an error carries its kind and its whole message, and copies and moves keep both.
// Method: make one of each kind, with messages longer than any fixed buffer; check the macros by
// functions that use them.
#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

namespace xtree {
namespace {

TEST(StatusTest, DefaultIsOk) {
  const Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.code(), Code::kOk);
  EXPECT_STREQ(status.message(), "ok");
}

TEST(StatusTest, EachConstructorGivesItsCodeAndItsFormattedMessage) {
  EXPECT_EQ(Status::InvalidArgument("x").code(), Code::kInvalidArgument);
  EXPECT_EQ(Status::NotFound("x").code(), Code::kNotFound);
  EXPECT_EQ(Status::Corruption("x").code(), Code::kCorruption);
  EXPECT_EQ(Status::Internal("x").code(), Code::kInternal);
  const Status status = Status::Make(Code::kBusy, "block %u of \"%s\"", 7u, "a");
  EXPECT_EQ(status.code(), Code::kBusy);
  EXPECT_STREQ(status.message(), "block 7 of \"a\"");
}

TEST(StatusTest, LongMessagesAreNotCut) {
  const std::string path(10'000, 'p');
  const Status status = Status::Corruption("file \"%s\"", path.c_str());
  EXPECT_EQ(std::string(status.message()), "file \"" + path + "\"");
}

TEST(StatusTest, ErrnoBecomesTheKindThatCallersActOn) {
  EXPECT_EQ(Status::FromErrno(ENOSPC, "x").code(), Code::kNoSpace);
  EXPECT_EQ(Status::FromErrno(EDQUOT, "x").code(), Code::kNoSpace);
  EXPECT_EQ(Status::FromErrno(ENOENT, "x").code(), Code::kNotFound);
  EXPECT_EQ(Status::FromErrno(ENOMEM, "x").code(), Code::kOutOfMemory);
  EXPECT_EQ(Status::FromErrno(EIO, "x").code(), Code::kIoError);
  EXPECT_EQ(Status::FromErrno(EMFILE, "x").code(), Code::kIoError);
  EXPECT_STREQ(Status::FromErrno(ENOENT, "could not open \"%s\"", "f").message(),
               "could not open \"f\": No such file or directory");
}

TEST(StatusTest, CopyingKeepsBothAndMovingLeavesOk) {
  Status first = Status::Corruption("bad");
  const Status copy = first;
  EXPECT_STREQ(first.message(), "bad");
  EXPECT_STREQ(copy.message(), "bad");
  const Status moved = std::move(first);
  EXPECT_EQ(moved.code(), Code::kCorruption);
  Status assigned = Status::NotFound("gone");
  assigned = copy;
  EXPECT_EQ(assigned.code(), Code::kCorruption);
  assigned = Status::Ok();
  EXPECT_TRUE(assigned.ok());
}

Result<std::string> Give(bool good) {
  if (!good) return Status::NotFound("nothing to give");
  return std::string("gift");
}
Status UseBoth(bool good, std::string* out) {
  XT_RETURN_IF_ERROR(Status::Ok());
  XT_ASSIGN_OR_RETURN(const std::string first, Give(true));
  XT_ASSIGN_OR_RETURN(*out, Give(good));
  *out += first;
  return Status::Ok();
}

TEST(ResultTest, MacrosPassTheValueOnOrReturnTheError) {
  std::string out;
  EXPECT_TRUE(UseBoth(true, &out).ok());
  EXPECT_EQ(out, "giftgift");
  const Status status = UseBoth(false, &out);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_STREQ(status.message(), "nothing to give");
}

TEST(ResultTest, AMoveOnlyValueCanBeTakenOut) {
  const auto make = [] { return Result<std::unique_ptr<int>>(std::make_unique<int>(7)); };
  const std::unique_ptr<int> taken = make().value();
  EXPECT_EQ(*taken, 7);
  auto result = make();
  EXPECT_EQ(**result, 7);
}

TEST(ResultDeathTest, TakingTheValueOfAnErrorStopsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Result<std::string> result = Give(false);
  EXPECT_DEATH((void)result.value(), "assertion failed at .*status.h:[0-9]+: ok\\(\\)");
}

}  // namespace
}  // namespace xtree
